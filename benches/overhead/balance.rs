//! Balancers of ten to ten thousand endpoints: ours, tower's, and tower's behind the buffer that makes it one that can be cloned.

use hopvine::layers::balance::{BalanceLayer, DiscoverLayer, P2cLeastRequest, P2cPeakEwma};
use tower::{ServiceBuilder, buffer::Buffer};

use crate::{
    bare::Plain,
    layers::{Http, add, add_each},
    measure::Case,
    peers,
    stacks::catalog,
};

pub(crate) fn cases(all: &mut Vec<Case>) {
    for count in [10_u16, 100, 1_000, 10_000] {
        let many = usize::from(count);
        let cases = &mut Vec::new();
        add(cases, &format!("hopvine/balance/p2c/{count}"), Some(&format!("tower/p2c/{count}")), move |bare| {
            ServiceBuilder::new()
                .layer(DiscoverLayer::new(catalog(count)))
                .layer(BalanceLayer::new(P2cLeastRequest))
                .service(bare)
        });
        add_each(
            cases,
            &format!("tower/p2c/{count}"),
            None,
            move |bare| peers::p2c::<Plain, _>(many, || peers::pending(bare)),
            move |bare| peers::p2c::<Http, _>(many, || peers::pending(bare)),
        );
        add_each(
            cases,
            &format!("tower/buffer-p2c/{count}"),
            None,
            move |bare| Buffer::<Plain, _>::new(peers::p2c(many, || peers::pending(bare)), 1024),
            move |bare| Buffer::<Http, _>::new(peers::p2c(many, || peers::pending(bare)), 1024),
        );
        add(
            cases,
            &format!("hopvine/balance/p2c-peak-ewma/{count}"),
            Some(&format!("tower/p2c-peak-ewma/{count}")),
            move |bare| {
                ServiceBuilder::new()
                    .layer(DiscoverLayer::new(catalog(count)))
                    .layer(BalanceLayer::new(P2cPeakEwma::default()))
                    .service(bare)
            },
        );
        add_each(
            cases,
            &format!("tower/p2c-peak-ewma/{count}"),
            None,
            move |bare| peers::p2c::<Plain, _>(many, || peers::peak_ewma(bare)),
            move |bare| peers::p2c::<Http, _>(many, || peers::peak_ewma(bare)),
        );
        all.extend(cases.drain(..).map(|case| if many < 10_000 { case } else { case.long() }));
    }
}
