//! The agent of mirror, as a library: what `mirror agent` composes.
//!
//! The modules follow the flow. Control path: [`control`] (objects -> resolve -> snapshot ->
//! publish) makes [`route`]s. Capture: [`enrol`] decides which pods, [`capture`] takes the
//! connections of a workload, with sockets that [`sockets`] makes inside its network namespace.
//! Data path: [`worker`] runs [`proxy`] (accept -> sniff -> serve -> match -> primary leg and
//! shadow leg), and [`outcome`] records how each leg ended. [`agent`] is the composition root, [`admin`] its window;
//! [`status`] shows what a running agent says there, [`explain`] what it would do with a single
//! request, [`check`] what is wrong with files of routes. [`controller`] writes what becomes of
//! routes into the cluster.

pub mod admin;
pub mod agent;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod capture;
pub mod check;
pub mod cli;
pub mod control;
pub mod controller;
pub mod echo;
pub mod enrol;
pub mod explain;
pub mod kube;
pub mod outcome;
pub mod proxy;
pub mod route;
pub mod sockets;
pub mod status;
pub mod worker;
