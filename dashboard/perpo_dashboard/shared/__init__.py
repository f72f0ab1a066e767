"""Parts that several pages share: stored runs, two runs side by side, pictures, links, widgets."""
