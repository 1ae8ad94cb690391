"""Push to burn: what was sent to an inbox becomes a disc, once and whole, or its job says what is missing."""
