"""Pure decisions: standard library plus cerberus, lark and re2, loaded on first use."""
