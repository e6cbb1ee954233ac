/* SPDX-License-Identifier: MIT */
/*
 * What every other public header stands on: the export mark, errors a person can act on, the log
 * sink, and the environment (clock and parallelism) that a program may replace.
 *
 * Threads: every function here may be called from any thread unless it says otherwise.
 */
#ifndef QUIESCE_BASE_H
#define QUIESCE_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what libquiesce.so exports; everything else in it is hidden. */
#define QSC_API		      __attribute__((visibility("default")))
#define QSC_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#define QSC_ERROR_TEXT_SIZE 2048

/*
 * An error that a person must act on. Functions that can fail in a way worth explaining take a
 * `struct qsc_error *` as their last argument; it may be NULL, and it is written only on failure.
 * The text is one sentence without a final full stop or newline that names the device, the state
 * and what to do.
 */
struct qsc_error {
	int number;	    /* positive errno; 0 when no error was recorded */
	const char *clause; /* identifier of the clause of the contract that was broken, or NULL */
	char text[QSC_ERROR_TEXT_SIZE];
};

/* clang-format off */
#define QSC_ERROR_NONE {0, NULL, {0}}
/* clang-format on */

/*
 * Record an error and return -number, so that a function can `return qsc_error_set(...)`. `clause`
 * must have static storage (see qsc_clause_id()) or be NULL. Does nothing but return when err is
 * NULL. Too long a text is cut.
 */
QSC_API int qsc_error_set(struct qsc_error *err, int number, const char *clause, const char *fmt,
			  ...) QSC_PRINTF(4, 5);

/* Put context in front of a recorded text ("device 2 (nic0): " + text). err may be NULL. */
QSC_API void qsc_error_prefix(struct qsc_error *err, const char *fmt, ...) QSC_PRINTF(2, 3);

enum qsc_log_level {
	QSC_LOG_ERROR,	 /* something failed and nobody else will say so */
	QSC_LOG_WARNING, /* a peer or user did what it should not; it was contained */
	QSC_LOG_INFO,	 /* a device or connection came, went or changed state */
	QSC_LOG_DEBUG,
};

/* Called with one line, without newline; may be called from several threads at once. */
typedef void qsc_log_fn(void *ctx, enum qsc_log_level level, const char *line);

/*
 * The library never prints. Lines of at most `level` go to `fn`; NULL (the default) drops them.
 * Not to be called while another thread is inside the library.
 */
QSC_API void qsc_log_set(qsc_log_fn *fn, void *ctx, enum qsc_log_level level);

/*
 * The outside world as the engine sees it: time, and running several tasks side by side. A
 * simulation replaces it to be deterministic; everybody else passes NULL for the real one.
 */
struct qsc_env {
	/* Monotonic time in microseconds. */
	uint64_t (*now_us)(void *ctx);
	/*
	 * Run task(arg[i]) for every i below count, side by side, and return when all have
	 * returned. Tasks may block on one another only through channels and devices.
	 * 0, or -errno when they could not be run (then none was). Where threads are short, some
	 * of more than 16 tasks may wait for others to end.
	 */
	int (*parallel)(void *ctx, void (*task)(void *arg), void *const args[], size_t count);
	/* Sleep; used only between polls of something that has no event to wait for. */
	void (*sleep_us)(void *ctx, uint64_t us);
	void *ctx;
};

/* The real clock and threads. Never fails; static storage. */
QSC_API const struct qsc_env *qsc_env_real(void);

/* Version of the library as "major.minor.patch"; static storage. */
QSC_API const char *qsc_version(void);

#ifdef __cplusplus
}
#endif
#endif
