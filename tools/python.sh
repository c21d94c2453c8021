#!/bin/sh
# Runs its arguments with a Python that is new enough: $PYTHON if set, else the tested 3.11 first.
for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$candidate" "$@"
    fi
done
echo "setup: no Python 3.11 or newer found${PYTHON:+ at $PYTHON}: install one, or name it with make PYTHON=/path/to/python" >&2
exit 2
