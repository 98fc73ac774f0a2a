//! The only room with side effects on the world: what governance asked for is done here, once, and
//! recorded as a decision with its evidence.
