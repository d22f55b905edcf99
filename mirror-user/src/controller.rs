//! `mirror controller`: what the agents make of each HTTPRoute, written where its author looks.
//! In: the objects of the cluster. Out: `status.parents` of HTTPRoutes, and Events. It carries no
//! traffic and needs no capability; without it everything works, and nobody is told.

pub mod lease;
pub mod status;
