"""RefScenes: rendered scenes with expressions that are true of exactly one thing, made in the REFER layout.

`flavours` says what is made, `write.make_refscenes` makes it, `grammar` speaks."""
