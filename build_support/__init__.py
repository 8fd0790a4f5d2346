"""How the extension is built: finding the tools (toolchain) and the build graph (graph)."""
