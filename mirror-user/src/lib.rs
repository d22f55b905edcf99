//! The agent of mirror, as a library: what `mirror agent` composes.
//!
//! The modules follow the flow. Control path: [`control`] (objects -> resolve -> snapshot -> publish)
//! makes [`route`]s. Capture: [`selection`] decides which pods, [`capture`] takes the connections of a
//! workload, with sockets that [`sockets`] makes inside its network namespace. Data path: [`worker`] runs
//! [`proxy`] (accept -> sniff -> serve -> match -> primary leg and shadow leg), and [`outcome`] records
//! how each leg ended. [`agent`] is the composition root, [`admin`] its HTTP endpoints; [`status`] shows what a
//! running agent says there, [`verdict`] judges by it whether a shadow is as good as its primary, [`explain`]
//! shows what an agent would do with a single request, [`check`] what is wrong with files of routes.
//! [`controller`] writes what becomes of routes into the cluster.

pub mod admin;
mod admin_client;
pub mod agent;
mod backoff;
pub mod capture;
pub mod check;
pub mod cli;
pub mod control;
pub mod controller;
mod dump;
pub mod echo;
pub mod error_chain;
pub mod explain;
mod hash;
pub mod heartbeat;
pub mod kube;
pub mod memory;
#[cfg(test)]
mod metric_reference;
pub mod model;
pub mod outcome;
pub mod plain;
pub mod proxy;
pub mod route;
pub mod segment;
pub mod selection;
pub mod sockets;
pub mod status;
mod stdout;
pub mod verdict;
#[cfg(test)]
mod work;
pub mod worker;
pub mod workload;
