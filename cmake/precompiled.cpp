// SPDX-License-Identifier: Apache-2.0
// What a target consists of that is there for its precompiled headers (msb.cmake).
