//! Which cluster meets which weather: TOML files with prose, and the types that read them (pure data).
