"""Names of choices whose code takes seconds to import, for those who only read a configuration."""

COMPILATIONS = ("default", "reduce-overhead", "max-autotune-no-cudagraphs")  # of torch.compile
