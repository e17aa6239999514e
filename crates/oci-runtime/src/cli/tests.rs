// SPDX-License-Identifier: Apache-2.0
//! Driving a runtime without the runtime.
