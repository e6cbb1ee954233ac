/* SPDX-License-Identifier: MIT */
/*
 * The demonstration in parts. demo.c: what the person asked for. demo_run.c: the orchestrator,
 * which starts everything, says who moves when, and judges. demo_process.c: its children.
 * demo_serve.c: a child that serves one device. demo_host.c: a child that holds a set, as a VMM
 * would: "A" has it first, "B" takes it over, and so on. demo_check.c: what it all came to.
 * demo_show.c and demo_timeline.c: for people. demo_json.c: for programs.
 *
 * Children are forked, not executed, before the orchestrator does anything else, and never start
 * children of their own. The orchestrator has one thread.
 */
#ifndef DEMO_H
#define DEMO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <quiesce/base.h>
#include <quiesce/migrate.h>

#include "folder.h"
#include "tenant.h"
#include "view.h"

#define DEMO_MAX_DEVICES    64U
#define DEMO_MAX_MIGRATIONS 1000U
#define DEMO_MAX_VIOLATIONS 64U

struct demo_config {
	struct tenant_config tenant;
	uint32_t migrations;
	uint64_t traffic_us; /* before the first, between, and after the last */
	uint32_t flags;	     /* migration flags of every device */
	bool tells_peers;
	bool json;
};

/* ---- between the orchestrator and its children ---- */

enum demo_side { DEMO_SIDE_A, DEMO_SIDE_B };
#define DEMO_SIDES 2

/* Orchestrator to host. */
enum demo_order {
	DEMO_ORDER_BEGIN,   /* open the devices and start the tenant */
	DEMO_ORDER_RECEIVE, /* open the devices and take the set over */
	DEMO_ORDER_SEND,    /* move the set to the other side */
	DEMO_ORDER_FINISH,  /* let the tenant finish and compare */
};

struct demo_command {
	enum demo_order order;
	uint32_t migration; /* from 1 on */
};

enum demo_event {
	DEMO_EVENT_READY,     /* server: it listens; host: it waits for orders */
	DEMO_EVENT_BEGUN,     /* host: the tenant runs */
	DEMO_EVENT_LISTENING, /* host: the source may connect */
	DEMO_EVENT_PHASE,     /* host: one entry of its timeline */
	DEMO_EVENT_MOVED,     /* host: sending or receiving has ended */
	DEMO_EVENT_VIOLATION, /* either: a clause was broken */
	DEMO_EVENT_RESULT,    /* host: the tenant has finished */
	DEMO_EVENT_FAILED,    /* either: it cannot go on */
};

/* As struct qsc_error, without a pointer. */
struct demo_error {
	int number; /* 0: none */
	char clause[16];
	char text[QSC_ERROR_TEXT_SIZE];
};

struct demo_phase {
	char name[32];
	uint32_t migration;
	enum demo_side side;
	bool source;
	int32_t device;	   /* -1: the whole set */
	uint64_t start_us; /* monotonic; the orchestrator makes it relative */
	uint64_t duration_us;
	uint64_t bytes;
};

struct demo_moved {
	bool source;
	bool stopped; /* the tenant is not running here, whoever owns the set */
	struct demo_error error;
	struct qsc_migrate_report report;
	char plan[256];
	/* When it failed, of every device: its state, or DEMO_STATE_UNKNOWN. */
	bool has_states;
	uint8_t states[DEMO_MAX_DEVICES];
};

#define DEMO_STATE_UNKNOWN UINT8_MAX

struct demo_message {
	enum demo_event event;
	uint32_t migration;
	union {
		struct demo_phase phase;
		struct demo_moved moved;
		struct demo_error error; /* VIOLATION, FAILED */
		struct tenant_result result;
	};
};

/* One of the two hosts while it happens; in memory shared by all. */
struct demo_live {
	struct tenant_live tenant;
	_Atomic(const char *) phase; /* static storage, at the same address in every child */
	_Atomic uint32_t pass;
	_Atomic uint64_t bytes_sent;
	_Atomic uint64_t bytes_remaining;
};

/* What a child needs to know; same in all. */
struct demo_shared {
	struct demo_config config;
	char directory[91];	/* of sockets: their names fit into an address as well */
	struct demo_live *live; /* DEMO_SIDES */
};

void demo_error_copy(struct demo_error *to, const struct qsc_error *from);
/* Send one message to the orchestrator; a child that cannot ends. Any thread. */
void demo_send(int socket, const struct demo_message *message);
void demo_send_error(int socket, enum demo_event event, const struct qsc_error *err);

/* "DIRECTORY/A0.sock"; size of path: DEMO_PATH_SIZE. */
#define DEMO_PATH_SIZE 108
void demo_device_path(const struct demo_shared *shared, enum demo_side side, uint32_t device,
		      char *path);
void demo_migration_path(const struct demo_shared *shared, uint32_t migration, char *path);
static inline char demo_side_name(enum demo_side side)
{
	return side == DEMO_SIDE_A ? 'A' : 'B';
}

/* Main functions of children: they return the exit status. */
int demo_serve(const struct demo_shared *shared, enum demo_side side, uint32_t device, int socket);
int demo_host(const struct demo_shared *shared, enum demo_side side, int socket);

/* ---- children, as the orchestrator sees them ---- */

struct demo_child {
	char name[48]; /* "host A", "the server of device 2 on side A" */
	enum demo_side side;
	int32_t device; /* -1: the host */
	pid_t pid;	/* 0: never started, or gone and waited for */
	int socket;	/* -1 when it has ended it */
	char end[64];	/* "was killed by signal 9 (Killed)", once it is gone */
	bool told;	/* why it ended is known */
};

/* Fork. In the child `main_function(shared, child, socket)` runs and its result is the status. */
struct demo_family {
	struct demo_child *children;
	uint32_t count;
	pid_t group;
};

int demo_family_make(struct demo_family *family, uint32_t capacity);
/* 0 in the parent; the child never returns. */
int demo_family_fork(struct demo_family *family, const struct demo_shared *shared,
		     enum demo_side side, int32_t device, struct qsc_error *err);
/* Wait for any that have ended. Returns how many. */
uint32_t demo_family_reap(struct demo_family *family);
/* Kill what is left, wait for all, free. Idempotent. */
void demo_family_end(struct demo_family *family);

/* A private folder for sockets, whose path fits into `directory`. The children hold it too. */
int demo_folder_make(struct folder *folder, char *directory, size_t size, struct qsc_error *err);

/* ---- what came out ---- */

struct demo_migration {
	uint32_t number;
	enum demo_side from;
	bool begun, ended, failed;
	uint64_t start_us; /* from the start of the demo, as all below */
	uint64_t end_us;
	uint64_t paused_us; /* the tenant */
	uint64_t resumed_us;
	uint64_t first_block_us;
	uint64_t downtime_us;
	double rate_before; /* blocks a second */
	double rate_during;
	double rate_after;
	char plan[256];
	char outcome[512];
	struct qsc_migrate_report source;
};

struct demo_outcome {
	struct demo_config config;
	uint64_t block_bytes;
	bool ok;
	bool unusable; /* the environment, not the demo: nothing was started */
	bool begun;    /* the tenant has run */
	bool has_result;
	struct tenant_result result;
	struct demo_error error;   /* the cause */
	struct demo_error follows; /* what followed from it first */
	char failed_at[64];	   /* "migration 2 failed" */
	char advice[768];	   /* what state everything is in and what to do */
	char violations[DEMO_MAX_VIOLATIONS][16];
	uint32_t num_violations;
	struct demo_phase *phases;
	size_t num_phases, max_phases;
	bool phases_lost; /* some did not come, or there was no memory for them */
	/* Clauses whose breach would have been seen. */
	const char *watched[8];
	uint32_t num_watched;
	struct demo_migration *migrations; /* config.migrations */
	uint64_t total_us;
};

/*
 * Do all of it. Fills the outcome; -EINTR when a signal ended it (*signal_number), -EINVAL when the
 * environment forbids to start at all: outcome->error says why, and nothing was printed.
 */
int demo_run(const struct demo_config *config, struct demo_outcome *outcome, int *signal_number);
void demo_outcome_release(struct demo_outcome *outcome);

/* Downtimes of the migrations that succeeded; all 0 when there was none. */
void demo_downtimes(const struct demo_outcome *outcome, uint64_t *min, uint64_t *median,
		    uint64_t *max);

#define DEMO_BROKE_SET_1 1U
#define DEMO_BROKE_SET_2 2U
/*
 * By the recorded phases of both sides: no device began to stop before all were quiescent (SET-1),
 * none began to run before all had left STOP (SET-2). Returns what was broken. All of the phases
 * must be there.
 */
uint32_t demo_check_waves(const struct demo_outcome *outcome);

/* "1, 2 in RUNNING; 0 gave no answer". */
void demo_describe_states(const uint8_t *states, uint32_t count, char *text, size_t size);

void demo_add_violation(struct demo_outcome *outcome, const char *clause);
/* At the end: what was broken, what would have been seen, and whether all is well. */
void demo_judge(struct demo_outcome *outcome);

/* ---- for people ---- */

struct demo_show {
	bool quiet; /* --json: nothing is shown */
	struct view_style style;
	bool line_open;
	uint64_t last_us;
	uint64_t last_blocks;
	double rate; /* of blocks, smoothed */
};

void demo_show_begin(struct demo_show *show, const struct demo_config *config);
/* Called often; decides by itself when to print. */
void demo_show_tick(struct demo_show *show, const struct demo_config *config, uint64_t elapsed_us,
		    uint32_t migration, enum demo_side owner, const struct demo_live *live);
/* A line that stays. */
void demo_show_note(struct demo_show *show, const char *fmt, ...) QSC_PRINTF(2, 3);
void demo_show_moved(struct demo_show *show, const struct demo_migration *migration);
void demo_show_outcome(struct demo_show *show, const struct demo_outcome *outcome);
void demo_show_timeline(const struct demo_show *show, const struct demo_outcome *outcome,
			const struct demo_migration *migration);

/* Returns an exit code, 0 when it was printed. */
int demo_print_json(const struct demo_outcome *outcome);

#endif
