"""Charts as inline SVG, drawn without a browser; the page's script only adds to them."""
