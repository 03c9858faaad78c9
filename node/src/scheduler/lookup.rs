//! Services and tasks by id, and what they are looked up by: a name, a service, a worker.
//!
//! Reading is the map's. Whoever adds or takes away, or gives a task to a worker, keeps the lists right with it; nothing else that
//! they follow ever changes: a service keeps its name, a task its service.

use super::model::{Service, Task};
use crate::map::{Iter, Map};
use crate::types::{ServiceId, TaskId, WorkerId};
use std::ops::Deref;

/// Services, by id and by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    by_id: Map<ServiceId, Service>,
    by_name: Map<String, ServiceId>,
}

/// Tasks, by id, by service and by worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    by_id: Map<TaskId, Task>,
    by_service: Map<(ServiceId, TaskId), ()>,
    by_worker: Map<(WorkerId, TaskId), ()>,
}

impl Services {
    /// Adds a service, or puts it in the place of the one with this id.
    pub fn insert(&mut self, id: ServiceId, service: Service) {
        self.remove(&id);
        let name = service.current.spec.name.clone();
        self.by_name.insert(name, id);
        self.by_id.insert(id, service);
    }

    /// Takes a service away.
    pub fn remove(&mut self, id: &ServiceId) {
        let Some(gone) = self.by_id.remove(id) else {
            return;
        };
        let name = &gone.current.spec.name;
        if self.by_name.get(name) == Some(id) {
            self.by_name.remove(name);
        }
    }

    /// A service, to be changed in anything but its name.
    pub fn get_mut(&mut self, id: &ServiceId) -> Option<&mut Service> {
        self.by_id.get_mut(id)
    }

    /// The service called `name`.
    pub fn named(&self, name: &str) -> Option<&Service> {
        self.by_id.get(self.by_name.get(name)?)
    }
}

impl Tasks {
    /// Adds a task, or puts it in the place of the one with this id.
    pub fn insert(&mut self, id: TaskId, task: Task) {
        self.remove(&id);
        self.by_service.insert((task.service, id), ());
        if let Some(worker) = task.worker {
            self.by_worker.insert((worker, id), ());
        }
        self.by_id.insert(id, task);
    }

    /// Takes a task away.
    pub fn remove(&mut self, id: &TaskId) {
        let Some(gone) = self.by_id.remove(id) else {
            return;
        };
        self.by_service.remove(&(gone.service, *id));
        if let Some(worker) = gone.worker {
            self.by_worker.remove(&(worker, *id));
        }
    }

    /// A task, to be changed in anything but its service and its worker.
    pub fn get_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.by_id.get_mut(id)
    }

    /// All tasks, to be changed in anything but their services and workers.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.by_id.values_mut()
    }

    /// Gives a task to `worker`.
    pub fn give(&mut self, id: TaskId, worker: WorkerId) {
        let Some(task) = self.by_id.get_mut(&id) else {
            return;
        };
        if let Some(before) = task.worker.replace(worker) {
            self.by_worker.remove(&(before, id));
        }
        self.by_worker.insert((worker, id), ());
    }

    /// The tasks of `service`, by id.
    pub fn of_service(&self, service: ServiceId) -> impl DoubleEndedIterator<Item = &Task> {
        let all = (service, TaskId(0))..=(service, TaskId(u64::MAX));
        let ids = self.by_service.range(all);
        ids.filter_map(|((_, id), ())| self.by_id.get(id))
    }

    /// The tasks of `worker`, by id.
    pub fn of_worker(&self, worker: WorkerId) -> impl DoubleEndedIterator<Item = &Task> {
        let all = (worker, TaskId(0))..=(worker, TaskId(u64::MAX));
        let ids = self.by_worker.range(all);
        ids.filter_map(|((_, id), ())| self.by_id.get(id))
    }

    /// The services that have tasks.
    pub fn services(&self) -> impl Iterator<Item = ServiceId> {
        let services = self.by_service.keys().map(|(service, _)| *service);
        let mut last = None;
        services.filter(move |&service| last.replace(service) != Some(service))
    }
}

impl Deref for Services {
    type Target = Map<ServiceId, Service>;

    fn deref(&self) -> &Map<ServiceId, Service> {
        &self.by_id
    }
}

impl Deref for Tasks {
    type Target = Map<TaskId, Task>;

    fn deref(&self) -> &Map<TaskId, Task> {
        &self.by_id
    }
}

impl<'a> IntoIterator for &'a Services {
    type Item = (&'a ServiceId, &'a Service);
    type IntoIter = Iter<'a, ServiceId, Service>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_id.iter()
    }
}

impl<'a> IntoIterator for &'a Tasks {
    type Item = (&'a TaskId, &'a Task);
    type IntoIter = Iter<'a, TaskId, Task>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_id.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Spec;

    fn task(id: u64, service: u64, worker: Option<u64>) -> Task {
        Task {
            id: TaskId(id),
            service: ServiceId(service),
            worker: worker.map(WorkerId),
            ..Task::default()
        }
    }

    #[test]
    fn tasks_are_found_by_service_and_by_worker() {
        let mut tasks = Tasks::default();
        for (id, service, worker) in [(1, 8, Some(5)), (2, 9, None), (3, 8, Some(6))] {
            tasks.insert(TaskId(id), task(id, service, worker));
        }
        let of_service = |tasks: &Tasks, id| -> Vec<u64> {
            tasks
                .of_service(ServiceId(id))
                .map(|task| task.id.0)
                .collect()
        };
        let of_worker = |tasks: &Tasks, id| -> Vec<u64> {
            tasks
                .of_worker(WorkerId(id))
                .map(|task| task.id.0)
                .collect()
        };
        assert_eq!(of_service(&tasks, 8), [1, 3]);
        assert_eq!(of_worker(&tasks, 5), [1]);
        tasks.give(TaskId(2), WorkerId(5));
        tasks.give(TaskId(3), WorkerId(5));
        assert_eq!(of_worker(&tasks, 5), [1, 2, 3]);
        assert_eq!(of_worker(&tasks, 6), [] as [u64; 0]);
        tasks.insert(TaskId(1), task(1, 9, None));
        assert_eq!(of_service(&tasks, 9), [1, 2]);
        tasks.remove(&TaskId(3));
        tasks.remove(&TaskId(3));
        assert_eq!(of_worker(&tasks, 5), [2]);
        assert_eq!(tasks.services().collect::<Vec<_>>(), [ServiceId(9)]);
    }

    #[test]
    fn a_service_is_found_by_its_name_until_it_goes() {
        let mut services = Services::default();
        for (id, name) in [(1, "web"), (2, "db")] {
            let id = ServiceId(id);
            services.insert(id, Service::new(id, Spec::new(name, &["run"])));
        }
        assert_eq!(services.named("db").map(|one| one.id), Some(ServiceId(2)));
        services.remove(&ServiceId(2));
        assert_eq!(services.named("db"), None);
        assert_eq!(services.len(), 1);
    }
}
