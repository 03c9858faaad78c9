//! Commands about volumes.

use super::tell::About;
use super::{At, Refused, refuse};
use crate::fleet::command::Done;
use crate::fleet::records::Key;
use crate::fleet::{Fleet, NAMES_MAX};
use crate::scheduler::model::Volume;
use crate::service::check;
use crate::state::command::Refusal;

impl Fleet {
    pub(super) fn create_volume(
        &mut self,
        name: &str,
        worker: Option<&str>,
        at: At,
    ) -> Result<Done, Refused> {
        if let Err(message) = check::name("the volume's name", name) {
            return refuse(Refusal::Invalid, message);
        }
        if self.snapshot.volumes.contains_key(name) {
            return refuse(Refusal::Conflict, format!("volume {name} is there already"));
        }
        if self.snapshot.volumes.len() >= NAMES_MAX {
            let message = format!("there are {NAMES_MAX} volumes: remove some first");
            return refuse(Refusal::Conflict, message);
        }
        let place = match worker {
            Some(worker) => Some(self.known_worker(worker)?.id),
            None => None,
        };
        let volume = Volume {
            name: name.to_owned(),
            worker: place,
        };
        self.snapshot.volumes.insert(name.to_owned(), volume);
        self.mark(Key::Volume(name.to_owned()));
        let message = match worker {
            Some(worker) => format!("volume {name} was made on {worker}"),
            None => format!("volume {name} was made; it will lie where its first task goes"),
        };
        let about = place.map_or_else(About::default, About::from);
        self.tell("volume.created", about, message, at);
        Ok(Done::Nothing)
    }

    /// A volume whose worker was removed may be forgotten although a service names it: whatever was in it is not coming back, and
    /// somebody has to say that the service may begin with an empty one.
    pub(super) fn remove_volume(&mut self, name: &str, at: At) -> Result<Done, Refused> {
        let Some(volume) = self.snapshot.volumes.get(name) else {
            let name = name.escape_debug();
            let message = format!("there is no volume `{name}`; `volume ls` shows which there are");
            return refuse(Refusal::NotFound, message);
        };
        let place = volume.worker;
        let orphan = place.is_some_and(|worker| !self.snapshot.workers.contains_key(&worker));
        let has = |mounts: &[crate::service::spec::Mount]| {
            mounts.iter().any(|mount| mount.volume == name)
        };
        let user = self.snapshot.services.values().find(|service| {
            let mut both = std::iter::once(&service.current).chain(&service.previous);
            both.any(|revision| has(&revision.spec.volumes))
        });
        if let Some(user) = user.filter(|_| !orphan) {
            let user = &user.current.spec.name;
            let message = format!(
                "volume {name} is named by service {user} (now or in the version before): remove or update that first"
            );
            return refuse(Refusal::Conflict, message);
        }
        let holder = self.snapshot.tasks.values().find(|task| {
            let waits = task.worker.is_none() && orphan;
            !task.state.is_end() && !waits && has(&task.volumes)
        });
        if let Some(holder) = holder {
            let message = format!(
                "volume {name} is held by task {}: wait until it has ended",
                holder.id
            );
            return refuse(Refusal::Conflict, message);
        }
        self.snapshot.volumes.remove(name);
        self.mark(Key::Volume(name.to_owned()));
        let about = place.map_or_else(About::default, About::from);
        self.tell(
            "volume.removed",
            about,
            format!("volume {name} was removed"),
            at,
        );
        Ok(Done::Nothing)
    }
}
