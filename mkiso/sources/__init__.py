"""Where studies come from: the PACS is asked, and what it holds is retrieved."""
