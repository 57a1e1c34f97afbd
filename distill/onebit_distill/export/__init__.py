"""From a finished run to a `.obt` file."""
