"""The aiohttp gateway: REST, websockets, SQL and the web page."""
