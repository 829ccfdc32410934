//! The agent from events to maps, without a kernel: [`golden`] cases by behaviour, [`property`] over whole histories.

mod golden;
mod property;
mod support;
