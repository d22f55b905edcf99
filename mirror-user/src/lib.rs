//! The agent of mirror, as a library: what `mirror agent` composes.
//!
//! The modules follow the flow. Control path: [`control`] (objects -> resolve -> snapshot ->
//! publish) makes [`route`]s. Capture: [`capture`] takes the connections of a workload, with
//! sockets that [`sockets`] makes inside its network namespace; [`enrol`] tells which pods. Data path: [`worker`] runs
//! [`proxy`] (accept -> sniff -> serve -> match -> primary leg and shadow leg), and [`outcome`]
//! records how each leg ended. [`agent`] is the composition root, [`admin`] its window;
//! [`explain`] says of a single request what the agent would do, [`check`] of files of routes what
//! is wrong with them. [`controller`] writes what becomes of routes into the cluster.

pub mod admin;
pub mod agent;
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
pub mod worker;
