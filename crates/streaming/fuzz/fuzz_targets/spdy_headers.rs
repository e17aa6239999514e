// SPDX-License-Identifier: Apache-2.0
#![no_main]
libfuzzer_sys::fuzz_target!(|wire: &[u8]| hull_streaming::fuzzing::spdy_headers(wire));
