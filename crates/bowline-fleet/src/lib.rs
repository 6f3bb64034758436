//! Services: the processes behind the gateway, started right and watched honestly.
//!
//! [`spec`] says what a service is. [`plan`] decides what is done with the services, and knows no process, no clock
//! and no chance; a simulator drives it as the crew does. [`os`] makes, signals and counts processes, [`logs`] keeps
//! what they print, [`probe`] asks them whether they are ready, [`interpreter`] finds the Python or the Node that can
//! run them. [`crew`] is the thread on which all of that happens.
//!
//! *Absent on purpose:* configuration, which is the leaf's; printing; cgroups, which need rights that a user does not
//! have.

mod clock;
pub mod crew;
pub mod interpreter;
pub mod limit;
pub mod logs;
pub mod os;
pub mod plan;
pub mod probe;
pub mod spec;
