//! What travels with a call: from a server's layer through its handler to the calls the handler makes.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use hopvine::{
    Context, Endpoint, EndpointHandle, Error, ErrorKind, NewService,
    connect::per_endpoint,
    context::{self, DropCause, Priority},
    endpoint::Group,
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        deadline::{DeadlineHeaderLayer, DeadlineLayer, ServerDeadlineLayer, ServerDeadlinePolicy},
        outlier::{OutlierDetectionLayer, OutlierPolicy},
    },
};
use http::{Request, Response};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_layer::Layer;

const MS: fn(u64) -> Duration = Duration::from_millis;

async fn wait(duration: Duration) {
    tokio::time::sleep_until(Instant::now() + duration).await;
}

fn remaining() -> Option<Duration> {
    Context::current().remaining()
}

/// A call that tells what is left when it is made, after some time of its own.
fn telling(
    layer: &DeadlineLayer,
) -> impl Service<Duration, Response = Option<Duration>, Error = Error, Future: Send> + Clone + Send + use<> {
    layer.layer(service_fn(async |takes: Duration| {
        let told = remaining();
        wait(takes).await;
        Ok::<_, Error>(told)
    }))
}

/// A request whose caller waits so many milliseconds.
fn request(timeout: u64) -> Request<()> {
    Request::builder().header("x-request-timeout-ms", timeout).body(()).unwrap()
}

fn server() -> ServerDeadlineLayer {
    ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handlers_calls_inherit_what_its_caller_said() {
    let stack = telling(&DeadlineLayer::new(MS(1000)));
    let handler = service_fn(move |_: Request<()>| {
        let stack = stack.clone();
        async move {
            let first = stack.clone().oneshot(MS(30)).await?;
            wait(MS(20)).await;
            let second = stack.oneshot(MS(1)).await?;
            Ok::<_, Error>((first, second))
        }
    });
    let (first, second) = server().layer(handler).oneshot(request(200)).await.unwrap();
    assert_eq!((first, second), (Some(MS(200)), Some(MS(150))));
    assert_eq!(remaining(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_shorter_time_than_its_caller_ends_alone_and_the_handler_goes_on() {
    let stack = telling(&DeadlineLayer::new(MS(50)));
    let handler = service_fn(move |_: Request<()>| {
        let stack = stack.clone();
        async move {
            let error = stack.oneshot(MS(500)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
            Ok::<_, Error>(remaining())
        }
    });
    assert_eq!(server().layer(handler).oneshot(request(200)).await.unwrap(), Some(MS(150)));
}

#[tokio::test(start_paused = true)]
async fn two_calls_at_once_keep_their_own_deadlines() {
    let (short, long) = (telling(&DeadlineLayer::new(MS(50))), telling(&DeadlineLayer::new(MS(120))));
    let handler = service_fn(move |_: Request<()>| {
        let (short, long) = (short.clone(), long.clone());
        async move {
            let start = Instant::now();
            let timed = async |call| {
                let result: Result<_, Error> = call;
                (result.map_err(|error| error.kind()), start.elapsed())
            };
            let (one, two, three) = tokio::join!(
                async { timed(short.clone().oneshot(MS(500)).await).await },
                async { timed(long.clone().oneshot(MS(100)).await).await },
                async { timed(long.clone().oneshot(MS(500)).await).await },
            );
            Ok::<_, Error>((one, two, three, remaining()))
        }
    });
    let (one, two, three, after) = server().layer(handler).oneshot(request(200)).await.unwrap();
    assert_eq!(one, (Err(ErrorKind::DeadlineExceeded), MS(50)));
    assert_eq!(two, (Ok(Some(MS(120))), MS(100)));
    assert_eq!(three, (Err(ErrorKind::DeadlineExceeded), MS(120)));
    assert_eq!(after, Some(MS(80)));
}

#[tokio::test(start_paused = true)]
async fn nested_deadlines_only_ever_come_nearer() {
    let innermost = service_fn(async |(): ()| Ok::<_, Error>(remaining()));
    let nested = ServiceBuilder::new()
        .layer(DeadlineLayer::new(MS(300)))
        .layer(DeadlineLayer::new(MS(100)))
        .layer(DeadlineLayer::new(MS(200)))
        .service(innermost);
    assert_eq!(nested.oneshot(()).await.unwrap(), Some(MS(100)));

    // A server called in the same process, by a caller that waits less than the server would.
    let inner = server().layer(service_fn(async |_: Request<()>| Ok::<_, Error>(remaining())));
    let outer = DeadlineLayer::new(MS(70)).layer(inner);
    assert_eq!(outer.oneshot(request(500)).await.unwrap(), Some(MS(70)));
}

#[tokio::test(start_paused = true)]
async fn spawned_work_inherits_by_scope_and_not_otherwise() {
    let stack = telling(&DeadlineLayer::new(MS(1000)));
    let handler = service_fn(move |_: Request<()>| {
        let stack = stack.clone();
        async move {
            let bare = tokio::spawn(stack.clone().oneshot(MS(1)));
            let scoped = tokio::spawn(Context::current().scope(stack.oneshot(MS(1))));
            Ok::<_, Error>((bare.await.unwrap()?, scoped.await.unwrap()?))
        }
    });
    let context = Context::new().with_priority(Priority(3));
    let (bare, scoped) = context.scope(server().layer(handler).oneshot(request(200))).await.unwrap();
    assert_eq!((bare, scoped), (Some(MS(1000)), Some(MS(200))));
}

#[tokio::test(start_paused = true)]
async fn spawned_work_outlives_the_handler_but_not_its_deadline() {
    let kinds = Arc::new(Mutex::new(None));
    let log = Arc::clone(&kinds);
    let stack = telling(&DeadlineLayer::new(MS(1000)));
    let handler = service_fn(move |_: Request<()>| {
        let (stack, log) = (stack.clone(), Arc::clone(&log));
        async move {
            let call = async move {
                let error = stack.oneshot(MS(500)).await.unwrap_err();
                *log.lock().unwrap() = Some((error.kind(), Instant::now()));
            };
            tokio::spawn(Context::current().scope(call));
            Ok::<_, Error>(())
        }
    });
    let start = Instant::now();
    server().layer(handler).oneshot(request(200)).await.unwrap();
    wait(MS(400)).await;
    assert_eq!(*kinds.lock().unwrap(), Some((ErrorKind::DeadlineExceeded, start + MS(200))));
}

/// A full outbound stack as far as these layers go, to an endpoint that hangs, and what it tells the endpoint.
type Hop = (EndpointHandle, Arc<Mutex<Vec<String>>>);

fn outbound(
    attempt: Duration,
) -> (Hop, impl Service<Request<()>, Response = Response<()>, Error = Error, Future: Send> + Clone + Send) {
    let endpoint: Endpoint = "127.0.0.1:1".parse().unwrap();
    let handle = EndpointHandle::new("catalog".into(), endpoint.into(), Arc::new(Group::new(2)));
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let policy = OutlierPolicy { consecutive_failures: 1, ..Default::default() };
    let below = ServiceBuilder::new()
        .layer(DeadlineHeaderLayer::new())
        .layer(OutlierDetectionLayer::new(policy).unwrap())
        .layer(per_endpoint(move |_| AttemptTimeoutLayer::new(attempt)))
        .service(move |_: &EndpointHandle| {
            let log = Arc::clone(&log);
            service_fn(move |request: Request<()>| {
                log.lock().unwrap().push(request.headers()["x-request-timeout-ms"].to_str().unwrap().to_owned());
                pending::<Result<Response<()>, Error>>()
            })
        });
    let service = DeadlineLayer::new(MS(1000)).layer(below.new_service(&handle));
    ((handle, told), service)
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_said_goes_over_the_wire_to_the_next_server() {
    let ((handle, told), stack) = outbound(MS(100));
    let handler = service_fn(move |inbound: Request<()>| {
        let stack = stack.clone();
        async move {
            wait(MS(60)).await;
            // The inbound request passed on, as a gateway does.
            let error = stack.oneshot(inbound).await.unwrap_err();
            Ok::<_, Error>(error.kind())
        }
    });
    let kind = server().layer(handler).oneshot(request(200)).await.unwrap();
    assert_eq!(kind, ErrorKind::AttemptTimeout);
    assert_eq!(*told.lock().unwrap(), ["139"]);
    assert!(handle.health().is_ejected());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_still_silent_when_time_runs_out_outside_has_timed_out() {
    // The outer timer stands in front of a handler that was not woken: only the drop can tell.
    struct Unwoken<F>(std::pin::Pin<Box<F>>, bool);
    impl<F: Future> Future for Unwoken<F> {
        type Output = F::Output;

        fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<F::Output> {
            if std::mem::replace(&mut self.1, true) { std::task::Poll::Pending } else { self.0.as_mut().poll(cx) }
        }
    }

    let ((handle, _), stack) = outbound(MS(5000));
    let handler = service_fn(move |inbound: Request<()>| Unwoken(Box::pin(stack.clone().oneshot(inbound)), false));
    let error = server().layer(handler).oneshot(request(80)).await.unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::DeadlineExceeded, Some("server_deadline")));
    assert!(handle.health().is_ejected(), "the drop was a timeout");

    // The client going away is none.
    let ((handle, _), stack) = outbound(MS(5000));
    let handler = service_fn(move |inbound: Request<()>| stack.clone().oneshot(inbound));
    assert!(crate::support::drop_after(server().layer(handler).oneshot(request(80)), 5).await.is_none());
    assert!(!handle.health().is_ejected());
}

#[tokio::test(start_paused = true)]
async fn a_race_lost_inside_a_handler_is_cancelled_though_a_deadline_holds() {
    struct Guard(Arc<Mutex<Vec<DropCause>>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(context::drop_cause());
        }
    }
    let causes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&causes);
    let handler = service_fn(move |_: Request<()>| {
        let (loser, later) = (Guard(Arc::clone(&log)), Guard(Arc::clone(&log)));
        async move {
            let never = async move {
                let _guard = loser;
                pending::<()>().await;
            };
            tokio::select! {
                () = never => {}
                () = wait(MS(10)) => {}
            }
            let _guard = later;
            pending::<Result<(), Error>>().await
        }
    });
    server().layer(handler).oneshot(request(80)).await.unwrap_err();
    assert_eq!(*causes.lock().unwrap(), [DropCause::Cancelled, DropCause::TimedOut]);
}

#[tokio::test(start_paused = true)]
async fn the_bridge_carries_the_deadline_where_the_task_does_not_reach() {
    let handler = service_fn(async |mut request: Request<()>| {
        Context::current().insert_into(request.extensions_mut());
        // Another task, as behind a buffer: it has the request and nothing else.
        let other = tokio::spawn(async move {
            let context = Context::from_extensions(request.extensions()).unwrap();
            context.scope(async { remaining() }).await
        });
        Ok::<_, Error>(other.await.unwrap())
    });
    assert_eq!(server().layer(handler).oneshot(request(200)).await.unwrap(), Some(MS(200)));
}
