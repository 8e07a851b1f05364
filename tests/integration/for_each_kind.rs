//! Tests that run for each kind.

/// Makes a test of each function, for each kind, in a namespace of its own: `FUNCTION: CONSTRUCTOR("NAMESPACE"),`.
macro_rules! for_each_kind {
    ($($test:ident: $new:ident($namespace:literal)),+ $(,)?) => { $(
        mod $test {
            use $crate::harness::TestNamespace;

            #[tokio::test]
            async fn data_key() {
                super::$test(TestNamespace::$new($namespace).await).await;
            }

            #[tokio::test]
            async fn data_key_pair() {
                let test = TestNamespace::$new(concat!($namespace, "-pair")).await;
                super::$test(test.of_kind::<datakey::api::DataKeyPair>()).await;
            }
        }
    )+ };
}
