#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| windlass_tests::fuzz::environment(text));
