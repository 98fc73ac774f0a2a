//! Requirement R2.4: every interleaving of the worker pool's queue. `loom` puts its locks where the
//! pool has those of the standard library; the code of the queue is the same file.

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use self::queue::Queue;

#[path = "../../src/task/queue.rs"]
mod queue;

/// What the queue is locked with here.
mod sync {
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
}

/// A thread loses the processor against its will this often at most: more finds nothing new and
/// takes minutes.
const PREEMPTIONS: usize = 2;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(check);
}

fn worker(queue: &Arc<Queue<u32>>) -> thread::JoinHandle<Vec<u32>> {
    let queue = Arc::clone(queue);
    thread::spawn(move || std::iter::from_fn(|| queue.take()).collect())
}

/// A worker that sleeps is woken for every job, and by the close: none is lost, none runs twice.
#[test]
fn no_job_is_lost_and_no_worker_sleeps_on() {
    model(|| {
        let queue = Arc::new(Queue::new());
        let workers = [worker(&queue), worker(&queue)];
        for job in [1, 2] {
            queue.push(job).expect("open");
        }
        queue.close();
        let mut done: Vec<u32> =
            workers.into_iter().flat_map(|worker| worker.join().expect("joined")).collect();
        done.sort_unstable();
        assert_eq!(done, [1, 2]);
    });
}

/// A push that meets a close either is done or comes back to who pushed.
#[test]
fn a_push_during_the_close_is_done_or_given_back() {
    model(|| {
        let queue = Arc::new(Queue::new());
        let worker = worker(&queue);
        let pusher = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.push(1).is_ok())
        };
        queue.close();
        let is_taken = pusher.join().expect("joined");
        let done = worker.join().expect("joined");
        assert_eq!(done.len(), usize::from(is_taken));
    });
}

/// A discard hands every job out that no worker has, and every worker stops.
#[test]
fn a_discard_and_the_workers_share_the_jobs_out() {
    model(|| {
        let queue = Arc::new(Queue::new());
        let worker = worker(&queue);
        for job in [1, 2] {
            queue.push(job).expect("open");
        }
        let discarded = queue.empty_and_close();
        let mut all: Vec<u32> = worker.join().expect("joined");
        all.extend(discarded);
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        assert_eq!(queue.push(3), Err(3));
    });
}
