//! Commands about services.

use super::{At, Refused, refuse};
use crate::fleet::command::Done;
use crate::fleet::records::Key;
use crate::fleet::{Fleet, NAMES_MAX, SPEC_BYTES_MAX, ServiceNote};
use crate::scheduler::model::{Phase, Rollout, Service};
use crate::service::Spec;
use crate::service::check::REPLICAS_MAX;
use crate::service::spec::{Mode, Rebalance};
use crate::state::command::Refusal;
use crate::types::{ServiceId, TaskId};

impl Fleet {
    pub(super) fn create_service(&mut self, spec: &Spec, at: At) -> Result<Done, Refused> {
        check(spec)?;
        if let Some(service) = self.service(&spec.name) {
            let name = &spec.name;
            let message = match service.removing {
                true => format!(
                    "service {name} is being removed; its name is free when its tasks have ended"
                ),
                false => {
                    format!("service {name} is there already; update it, or choose another name")
                }
            };
            return refuse(Refusal::Conflict, message);
        }
        if self.snapshot.services.len() >= NAMES_MAX {
            let message = format!("there are {NAMES_MAX} services: remove some first");
            return refuse(Refusal::Conflict, message);
        }
        let id = ServiceId(at.index);
        self.snapshot
            .services
            .insert(id, Service::new(id, spec.clone()));
        let note = ServiceNote {
            created_ms: at.time_ms,
            updated_ms: at.time_ms,
        };
        self.services.insert(id, note);
        // Numbers of tasks begin with 1.
        self.snapshot.next_task = self.snapshot.next_task.max(TaskId(1));
        self.mark(Key::Service(id));
        self.keep_spec(id);
        let message = format!("service {} was made", spec.name);
        self.tell("service.created", id, message, at);
        self.service_done(id)
    }

    pub(super) fn update_service(
        &mut self,
        name: &str,
        spec: &Spec,
        expect_version: Option<u64>,
        at: At,
    ) -> Result<Done, Refused> {
        let service = self.present_service(name)?;
        let (id, version) = (service.id, service.current.version);
        if let Some(expected) = expect_version.filter(|&expected| expected != version) {
            return refuse(
                Refusal::Precondition,
                format!(
                    "service {name} has version {version}, not {expected}: somebody changed it; read it and try again"
                ),
            );
        }
        if spec.name != name {
            let message = format!(
                "a service keeps its name: the specification says `{}`, the service is {name}",
                spec.name.escape_debug()
            );
            return refuse(Refusal::Invalid, message);
        }
        if spec.mode != service.current.spec.mode {
            let message = format!(
                "service {name} keeps its mode (replicated or global): remove it and make it anew"
            );
            return refuse(Refusal::Invalid, message);
        }
        check(spec)?;
        if *spec != *service.current.spec {
            self.revise(id, spec.clone(), "service.updated", at);
        }
        self.service_done(id)
    }

    pub(super) fn scale_service(
        &mut self,
        name: &str,
        replicas: u32,
        at: At,
    ) -> Result<Done, Refused> {
        let service = self.present_service(name)?;
        let mut spec = Spec::clone(&service.current.spec);
        if spec.mode == Mode::Global {
            let message =
                format!("service {name} is global: it has one task on each worker that fits");
            return refuse(Refusal::Invalid, message);
        }
        if replicas > REPLICAS_MAX {
            let message = format!("{replicas} copies are too many: at most {REPLICAS_MAX}");
            return refuse(Refusal::Invalid, message);
        }
        let id = service.id;
        if spec.replicas != replicas {
            spec.replicas = replicas;
            self.revise(id, spec, "service.scaled", at);
        }
        self.service_done(id)
    }

    pub(super) fn roll_service_back(&mut self, name: &str, at: At) -> Result<Done, Refused> {
        let service = self.present_service(name)?;
        if service.previous.is_none() {
            let message = format!(
                "service {name} has no version before this one to go back to: update it instead"
            );
            return refuse(Refusal::Conflict, message);
        }
        let id = service.id;
        self.roll_back(id, "somebody asked for it", at);
        self.drop_specs(id);
        self.service_done(id)
    }

    pub(super) fn pause_service(
        &mut self,
        name: &str,
        paused: bool,
        at: At,
    ) -> Result<Done, Refused> {
        let service = self.present_service(name)?;
        let (id, rollout) = (service.id, service.rollout);
        let (phase, kind, word) = match (rollout.phase, paused) {
            (Phase::Running, true) => (Phase::Paused, "service.paused", "paused"),
            (Phase::Paused, false) => (Phase::Running, "service.continued", "goes on"),
            (phase, _) => {
                let message = match (phase, paused) {
                    (Phase::Paused, _) => "its rollout is paused already",
                    (Phase::Running, _) => "its rollout is not paused",
                    (Phase::RollingBack, _) => {
                        "it goes back to the version before, which is not paused"
                    }
                    _ => "no rollout of it is under way",
                };
                return refuse(Refusal::Conflict, format!("service {name}: {message}"));
            }
        };
        // Who continues knows of the failures so far; only new ones pause it again.
        let failures = if paused { rollout.failures } else { 0 };
        let rollout = Rollout {
            phase,
            failures,
            ..rollout
        };
        self.with_service(id, |service| service.rollout = rollout);
        let message = format!("the rollout of service {name} {word}: somebody asked for it");
        self.tell(kind, id, message, at);
        self.service_done(id)
    }

    pub(super) fn rebalance_service(&mut self, name: &str, at: At) -> Result<Done, Refused> {
        let service = self.present_service(name)?;
        let id = service.id;
        if service.current.spec.mode == Mode::Global {
            let message = format!("service {name} is global: its tasks belong where they are");
            return refuse(Refusal::Invalid, message);
        }
        self.spread_anew(id, "somebody asked for it", at);
        self.service_done(id)
    }

    /// A worker came or came back: services that want it are spread anew.
    pub(super) fn spread_on_join(&mut self, worker: &str, at: At) {
        let wants = |service: &&Service| {
            let spec = &service.current.spec;
            spec.placement.rebalance == Rebalance::OnJoin && !service.removing
        };
        let services = self.snapshot.services.values().filter(wants);
        let services: Vec<ServiceId> = services.map(|service| service.id).collect();
        for id in services {
            self.spread_anew(id, &format!("worker {worker} is there"), at);
        }
    }

    fn spread_anew(&mut self, id: ServiceId, why: &str, at: At) {
        let service = self.snapshot.services.get(&id);
        if service.is_some_and(|service| !service.rebalancing) {
            self.with_service(id, |service| service.rebalancing = true);
            let name = self.service_name(id);
            let message = format!("the tasks of service {name} are spread anew: {why}");
            self.tell("service.rebalancing", id, message, at);
        }
    }

    pub(super) fn remove_service(&mut self, name: &str, at: At) -> Result<Done, Refused> {
        let Some(service) = self.service(name) else {
            return self.no_such_service(name);
        };
        let id = service.id;
        if !service.removing {
            self.with_service(id, |service| service.removing = true);
            let message = format!("service {name} is being removed");
            self.tell("service.removing", id, message, at);
        }
        self.service_done(id)
    }

    /// Goes back to the contents before; there are some.
    pub(super) fn roll_back(&mut self, id: ServiceId, why: &str, at: At) {
        self.with_service(id, |service| service.roll_back(at.time_ms));
        self.specification_changed(id, at);
        let name = self.service_name(id);
        let message = format!("service {name} goes back to the version before: {why}");
        self.tell("service.rolled_back", id, message, at);
    }

    fn revise(&mut self, id: ServiceId, spec: Spec, kind: &str, at: At) {
        self.with_service(id, |service| service.revise(spec, at.time_ms));
        self.specification_changed(id, at);
        self.drop_specs(id);
        let Some(service) = self.snapshot.services.get(&id) else {
            return;
        };
        let (name, version) = (&service.current.spec.name, service.current.version);
        let message = match kind {
            "service.scaled" => format!(
                "service {name} has {} copies now",
                service.current.spec.replicas
            ),
            _ if service.current.contents == version => {
                format!("service {name} was updated to version {version}; its tasks are replaced")
            }
            _ => format!("service {name} was updated to version {version}"),
        };
        self.tell(kind, id, message, at);
    }

    fn with_service(&mut self, id: ServiceId, change: impl FnOnce(&mut Service)) {
        if let Some(service) = self.snapshot.services.get_mut(&id) {
            change(service);
            self.mark(Key::Service(id));
        }
    }

    fn specification_changed(&mut self, id: ServiceId, at: At) {
        if let Some(note) = self.services.get_mut(&id) {
            note.updated_ms = at.time_ms;
        }
        self.keep_spec(id);
    }

    /// A service that is not being removed.
    fn present_service(&self, name: &str) -> Result<&Service, Refused> {
        match self.service(name) {
            Some(service) if service.removing => refuse(
                Refusal::Conflict,
                format!("service {name} is being removed"),
            ),
            Some(service) => Ok(service),
            None => self.no_such_service(name),
        }
    }

    fn service_done(&self, id: ServiceId) -> Result<Done, Refused> {
        let service = self.snapshot.services.get(&id);
        let version = service.map_or(0, |service| service.current.version);
        Ok(Done::Service { id, version })
    }

    fn no_such_service<T>(&self, name: &str) -> Result<T, Refused> {
        let says = self.other_than_service(name);
        let says = says.unwrap_or_else(|| "`service ls` shows which there are".to_owned());
        let message = format!("there is no service `{}`; {says}", name.escape_debug());
        refuse(Refusal::NotFound, message)
    }
}

fn check(spec: &Spec) -> Result<(), Refused> {
    if let Err(faults) = spec.check() {
        let message = format!("the specification is refused: {}", faults.join("; "));
        return refuse(Refusal::Invalid, message);
    }
    let mut counted = Counted(0);
    let written = serde_json::to_writer(&mut counted, spec);
    let bytes = written.map_or(usize::MAX, |()| counted.0);
    if bytes > SPEC_BYTES_MAX {
        let message = format!(
            "the specification takes {bytes} bytes as JSON: at most {SPEC_BYTES_MAX}; shorten its environment or labels"
        );
        return refuse(Refusal::Invalid, message);
    }
    Ok(())
}

/// Bytes that were written, and are not kept.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
