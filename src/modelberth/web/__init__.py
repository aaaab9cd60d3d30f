"""Pages in the browser, over the same flows and the same JSON as the command line. Here: the page of a memory plan."""
