/* SPDX-License-Identifier: MIT */
/*
 * Static probes: places where a tracer (bpftrace, perf, SystemTap) can look while the program runs.
 * Each is one `nop` until somebody does, and a note in the library that says where its arguments
 * are; so give arguments that are at hand anyway. docs/seeing.rst lists them for those who trace,
 * and a test compares that list with the notes.
 */
#ifndef QSC_BASE_PROBE_H
#define QSC_BASE_PROBE_H

/* One macro for any number of arguments. */
#define SDT_USE_VARIADIC 1
#include <sys/sdt.h>

/* QSC_PROBE(name, ...): of the provider "quiesce"; integers and pointers, at most 12. */
#define QSC_PROBE(...) STAP_PROBEV(quiesce, __VA_ARGS__)

#endif
