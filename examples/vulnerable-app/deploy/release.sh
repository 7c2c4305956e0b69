#!/bin/sh
# Publishes a release. The token is made up.
export GITHUB_TOKEN=ghp_NotARealTokenNotARealTokenNotARealTo
gh release create "$1"
