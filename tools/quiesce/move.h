/* SPDX-License-Identifier: MIT */
/*
 * One migration as the tool sees it, whoever carries it out: what was asked, what happened, how it
 * ended. The host fills it in, views show it, and it travels over a host's control socket as JSON.
 */
#ifndef MOVE_H
#define MOVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/migrate.h>

struct json_object;

enum move_verb { MOVE_SEND, MOVE_RECEIVE, MOVE_SAVE, MOVE_RESTORE };

/* One entry of the timeline; times count from move.start_us. */
struct move_phase {
	char name[32];
	int32_t device; /* -1: the whole set */
	uint32_t count; /* 1; more where phases of one name and device were put together */
	uint64_t start_us;
	uint64_t duration_us;
	uint64_t bytes;
};

/* What progress() said at some time; all of them are kept, thinned out when there are many. */
struct move_sample {
	char phase[32];
	uint32_t pass;
	uint64_t elapsed_us;
	uint64_t bytes_sent;
	uint64_t bytes_remaining;
	uint64_t bytes_per_second;
	uint64_t dirty_per_second;
	uint64_t predicted_downtime_us; /* 0: not known */
};

/* So many of each at most; a longer recording is made coarser, not cut short. */
#define MOVE_MAX_PHASES	 20000U
#define MOVE_MAX_SAMPLES 1000UL
#define MOVE_MAX_DEVICES 4096U

struct move_device {
	char name[64];
	char uri[256];
	uint32_t flags; /* QSC_MIGRATION_* */
};

struct move {
	enum move_verb verb;
	char transport[256]; /* URI of the other side or file */
	char host[64];	     /* node name of this side */
	uint64_t started_at; /* seconds since the epoch */
	uint64_t start_us;   /* qsc_env.now_us at which it began */
	struct move_device *devices;
	uint32_t num_devices;
	uint64_t memory_bytes;
	uint64_t downtime_limit_us;
	uint64_t bandwidth; /* bytes a second; 0: no limit */
	char plan[256];	    /* reason of the set's strategy */
	struct move_phase *phases;
	size_t num_phases;
	struct move_sample *samples;
	size_t num_samples;
	bool ended;
	struct qsc_migrate_report report;
	/* The failure; number 0: none. As struct qsc_error, without a pointer. */
	int error_number;
	char error_clause[16];
	char error_text[QSC_ERROR_TEXT_SIZE];
};

/* Everything in it is freed; idempotent. */
void move_release(struct move *move);
/* What the engine's progress() says, as a sample. */
void move_sample_set(struct move_sample *sample, const struct qsc_migrate_progress *progress);
/* Keep one. -ENOMEM when it cannot be kept, which harms nothing but the report. */
int move_keep_sample(struct move *move, const struct move_sample *sample);
/* Both: from the engine's progress(). */
int move_add_sample(struct move *move, const struct qsc_migrate_progress *progress);
/*
 * Take what the timeline has from start_us and what was waited on, in place of what was taken
 * before. -ENOMEM.
 */
int move_take_timeline(struct move *move, struct qsc_timeline *timeline);
/*
 * When everything was stopped, as far as was recorded: false when it never was. Times count as
 * those of the phases.
 */
bool move_stop(const struct move *move, uint64_t *start_us, uint64_t *duration_us);
/* What it took, without the time that a destination waited for its source. */
uint64_t move_took_us(const struct move *move);
/* From the first phase to the end of the last, all of the stop included; the duration is not 0. */
void move_span(const struct move *move, uint64_t *start_us, uint64_t *duration_us);
/* Exit codes: 0 done, 1 failed and the source has the set, 3 nobody is proved to have it. */
#define MOVE_UNPROVED 3
int move_exit_code(const struct move *move);

/*
 * NULL: out of memory. The keys are documented in docs/seeing.rst. start_us means nothing to others
 * and is left out.
 */
struct json_object *move_to_json(const struct move *move);
struct json_object *move_sample_to_json(const struct move_sample *sample);
/*
 * Untrusted text of another process into *move, which need not be initialised (what it had is not
 * freed), or *sample: 0, -EPROTO for what is none, -ENOMEM; then *move is empty. Text that could
 * steer a terminal is made harmless, no number is larger than 2^62, every phase is of a device of
 * the set.
 */
int move_from_json(struct json_object *object, struct move *move);
int move_sample_from_json(struct json_object *object, struct move_sample *sample);
/* "send", "receive", "save", "restore"; static storage. */
const char *move_verb_name(enum move_verb verb);
/* "ok", "failed", "unproved"; "running" before the end. Static storage. */
const char *move_result_name(const struct move *move);

/* ---- views ---- */

struct move_view;

/*
 * Progress on stderr: a bar with phase, rates, remaining and predicted downtime that is redrawn
 * when it is a terminal, plain lines (at changes of phase and every few seconds) when not, nothing
 * when quiet. A terminal or pipe that takes nothing any more never holds up the caller: then lines
 * are left out. NULL for no memory: nothing is shown then. One thread at a time.
 */
struct move_view *move_view_create(bool quiet);
/* Called often; decides by itself when to show something. */
void move_view_progress(struct move_view *view, const struct move *move,
			const struct move_sample *sample);
/*
 * On stdout, unless quiet or without a view: what happened, with the parts of the stop predicted
 * and measured, for a person. On stderr, in any case: what went wrong and what to do.
 */
void move_view_end(struct move_view *view, const struct move *move);
void move_view_destroy(struct move_view *view);

/* A self-contained HTML page with the timeline; written to a temporary name and renamed. */
int move_write_html(const struct move *move, const char *path, struct qsc_error *err);
/* Whether it could be, as things stand: 0, or -errno as that. Leaves nothing behind. */
int move_check_html(const char *path, struct qsc_error *err);

#endif
