//! The flags of `src/service/`, and the order in which its parts take effect.
