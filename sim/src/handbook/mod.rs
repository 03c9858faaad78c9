//! The handbook: one page per scenario, written from runs, for an operator at three in the morning.
//!
//! `model` adds runs up and refuses when one failed; `lanes` and `picture` draw one run; `story` tells it; `page` writes the
//! page; `live` what was kept of live runs; `book` puts the files together, writes or checks them; `command` is `storm handbook`.
//! All but the last three are pure: the same reports give the same bytes. Nothing on a page depends on the date, the machine, the
//! load or the commit of its making; it depends on the code, the scenarios, the seeds, and the files of live runs that are kept.

pub mod book;
pub mod command;
pub mod lanes;
pub mod live;
pub mod model;
pub mod page;
pub mod picture;
pub mod story;
