/* SPDX-License-Identifier: MIT */
/*
 * What the benchmarks share. A figure is always a comparison of two things measured in the same
 * run, in alternating rounds, so that a busy or slow machine harms both sides alike; what is
 * compared are the medians of the rounds. A program in this folder uses public headers only.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <quiesce/runtime.h>
#include <quiesce/set.h>

enum bench_aim { AIM_NONE, AIM_AT_MOST, AIM_AT_LEAST };

struct bench_figure {
	const char *key;     /* for --json */
	const char *name;    /* for people */
	const char *against; /* what it is compared with */
	const char *unit;    /* of value and against_value */
	double value;
	double against_value;
	double ratio; /* value / against_value, or, without a base, value itself */
	enum bench_aim aim_is;
	double aim; /* of the ratio; of the value when `absolute` */
	bool absolute;
};

/* A set that moved from one process to another, beside the same bytes without devices. */
struct bench_move {
	size_t devices;
	uint64_t state; /* bytes of each */
	bool precopy;
	double downtime_us;
	double total_us;
	double socket_us; /* a bare UNIX socket carries as many bytes */
	double memcpy_us;
};

#define BENCH_MAX_FIGURES 32
#define BENCH_MAX_MOVES	  16

struct bench_run {
	bool quick;
	int cpus[2]; /* the CPUs to use; both the same when there is only one */
	struct bench_figure figures[BENCH_MAX_FIGURES];
	size_t num_figures;
	struct bench_move moves[BENCH_MAX_MOVES];
	size_t num_moves;
};

/* Add a figure; ratio is computed here. */
void bench_add(struct bench_run *run, struct bench_figure figure);

/* The benchmarks; they end the program when they cannot be run. */
void bench_register_read(struct bench_run *run);
void bench_state_data(struct bench_run *run);
void bench_state_load(struct bench_run *run);
void bench_log_report(struct bench_run *run);
void bench_dma(struct bench_run *run);
void bench_set(struct bench_run *run);
void bench_moves(struct bench_run *run);
void bench_audit(struct bench_run *run);

/* ---- tools ---- */

/* Print why and end the program. */
_Noreturn void bench_die(const char *what, int ret);

uint64_t bench_now_ns(void);
/* Sorts the samples. */
double bench_median(double *samples, size_t count);
void bench_pin(int cpu);
/* On any of the CPUs to use, with every thread and process made from now on. */
void bench_spread(const struct bench_run *run);

/* Private memory, touched, with huge pages where there are any. */
void *bench_memory(size_t size);

/*
 * A process of its own at the other end of a stream socket. It can be stopped while the other side
 * of a comparison is measured, so that a spinning peer does not take part in that.
 */
struct bench_peer {
	pid_t pid;
	int fd;
};

typedef void bench_serve_fn(int fd, const void *arg);
void bench_peer_start(struct bench_peer *peer, int cpu, bench_serve_fn *serve, const void *arg);
void bench_peer_pause(const struct bench_peer *peer);
void bench_peer_resume(const struct bench_peer *peer);
/* Close the socket and end the process. */
void bench_peer_end(struct bench_peer *peer);

/*
 * The bare peer (arg: struct bench_bare): reads requests of `request` bytes, and `upload` bytes
 * that follow them, and answers each with `header` bytes and then `payload` bytes taken from
 * `memory` bytes of memory in turn.
 */
struct bench_bare {
	size_t request;
	size_t upload;
	size_t header;
	size_t payload;
	size_t memory;
	bool poll;
};
void bench_bare_serve(int fd, const void *arg);
/* One request and its reply into buf, which holds header and payload. */
void bench_bare_ask(int fd, const struct bench_bare *bare, void *buf);
/* One request with its upload, and the header that answers it. */
void bench_bare_give(int fd, const struct bench_bare *bare, const void *upload);

/* The device under test (arg: struct bench_served), behind a vfio-user server. */
struct bench_served {
	bool poll;
	/* Open the device; in the server's process. */
	int (*open)(void *ctx, struct qsc_device **dev, struct qsc_error *err);
	void *open_ctx;
};
void bench_vfio_user_serve(int fd, const void *arg);

/* ---- many devices ---- */

/* Idle devices with all capabilities, that hold `state` bytes each, in one set. */
struct bench_fleet {
	size_t count;
	uint64_t state;
	struct qsc_device **devs;
	struct qsc_runtime **rts; /* of those in this process */
	struct qsc_set *set;
	pid_t server; /* of those behind one, else 0 */
};

/* In this process; filled: with something else than zeroes. */
void bench_fleet_open(struct bench_fleet *fleet, size_t count, uint64_t state, bool filled);
/* Whether every device holds what filled ones hold. */
bool bench_fleet_filled(const struct bench_fleet *fleet);
/* Over vfio-user, in one process of their own; not while this one has threads. */
void bench_fleet_connect(struct bench_fleet *fleet, size_t count, uint64_t state);
void bench_fleet_close(struct bench_fleet *fleet);

/* As many threads in a process of their own that answer what they are asked, and do nothing else.
 */
struct bench_bare_fleet {
	size_t count;
	int *fds;
	pid_t server;
};

/* Not while this process has threads. */
void bench_bare_fleet_open(struct bench_bare_fleet *fleet, size_t count);
/* Ask all, then take the answers. */
void bench_bare_fleet_ask(const struct bench_bare_fleet *fleet);
void bench_bare_fleet_close(struct bench_bare_fleet *fleet);

/* ---- the model for what dmacopy cannot do: DMA writes on demand ---- */

#define BENCH_REG_IOVA	 0x00 /* 64 bits */
#define BENCH_REG_SIZE	 0x08 /* 64 bits */
#define BENCH_REG_STRIDE 0x10 /* 64 bits */
/* Write eight bytes at every STRIDE of [IOVA, IOVA + SIZE), before the access returns. */
#define BENCH_REG_WRITE 0x18

/* An open handle that destroys the model when it is closed; *rt for direct DMA calls, or NULL. */
int bench_model_open(struct qsc_device **dev, struct qsc_runtime **rt, struct qsc_error *err);

#endif
