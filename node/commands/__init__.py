"""The commands that run the Kaspa node: `listen` and `dial`."""
