//! Empty: the tests of the simulated world are in `tests/`.
