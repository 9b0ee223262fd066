//! What the compiler says of a stack put together wrongly: the words a user reads.
//!
//! They change from release to release, so they are compared only when `HOPVINE_UI` is set, on the toolchain that the
//! expected ones were written with. That none of it compiles is checked always, in the docs of `layers::balance`.

#[test]
fn a_stack_put_together_wrongly_says_what_is_missing() {
    if std::env::var_os("HOPVINE_UI").is_some() {
        trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
    }
}
