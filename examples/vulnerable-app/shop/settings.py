"""Settings of the shop. Every secret here is made up."""

AWS_ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
DATABASE_PASSWORD = "not-a-real-password"
PAGE_SIZE = 20
