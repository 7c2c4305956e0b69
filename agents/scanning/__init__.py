"""What the scanners find in a folder of source code.

Everything here is blocking and knows nothing of tasks: `scan.py` and `check.py` take a folder and
give plain JSON. `process.py` runs them in a process of their own, `child.py` starts that from an
agent.
"""
