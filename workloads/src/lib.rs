//! What clients do, and what must then be true; speaks to a cluster through its public API only.
