/* SPDX-License-Identifier: MIT */
/* See predict.h. */
#include "migrate/predict.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "migrate/link.h"

#define US_PER_S 1000000.0

const char *qsc_downtime_part_name(enum qsc_downtime_part part)
{
	static const char *const names[QSC_DOWNTIME_PARTS] = {
		"pause", "quiesce", "stop", "collect", "transfer", "load", "commit", "run",
	};

	return (unsigned int)part < QSC_ARRAY_SIZE(names) ? names[part] : "?";
}

uint64_t qsc_predict_assumed_us(enum qsc_downtime_part part)
{
	switch (part) {
	case QSC_DOWNTIME_QUIESCE:
	case QSC_DOWNTIME_STOP:
	case QSC_DOWNTIME_LOAD:
	case QSC_DOWNTIME_RUN:
		return 1000;
	case QSC_DOWNTIME_COMMIT:
		return 200;
	default:
		/* What the user does is its own affair; with nothing to collect it takes no time.
		 */
		return 0;
	}
}

/* ---- measurements ---- */

void qsc_rate_add(struct qsc_rate *rate, uint64_t bytes, uint64_t us)
{
	double time = us ? (double)us : 1.0;
	double most = (time > QSC_RATE_WINDOW_US ? time : QSC_RATE_WINDOW_US) / 2;

	if (rate->us > most) {
		rate->bytes *= most / rate->us;
		rate->us = most;
	}
	rate->bytes += (double)bytes;
	rate->us += time;
}

/* Bytes a microsecond; 0 where nothing is known. */
static double speed(const struct qsc_rate *rate)
{
	return rate->us > 0 ? rate->bytes / rate->us : 0;
}

uint64_t qsc_rate_per_second(const struct qsc_rate *rate)
{
	double value = speed(rate) * US_PER_S;

	if (rate->us <= 0)
		return 0;
	return value < 1 ? 1 : (uint64_t)value;
}

void qsc_time_add(struct qsc_time *time, uint64_t us)
{
	time->us = time->known ? (time->us + us) / 2 : us;
	time->known = true;
}

/* ---- the prediction ---- */

/*
 * Members go through a wave side by side, all at once; for more of them than were asked at a time
 * there are no more processors.
 */
static uint64_t look_us(const struct qsc_predict *predict)
{
	uint64_t longest = 0;
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < predict->num_members; i++) {
		longest = qsc_max_u64(longest, predict->members[i].look.us);
		sum += predict->members[i].look.us;
	}
	return qsc_max_u64(longest, sum / (predict->askers ? predict->askers : 1));
}

static uint64_t part_us(const struct qsc_predict *predict, enum qsc_downtime_part part)
{
	uint64_t us = predict->part[part].known ? predict->part[part].us
						: qsc_predict_assumed_us(part);

	return part == QSC_DOWNTIME_STOP || (part == QSC_DOWNTIME_RUN && us) ? us + look_us(predict)
									     : us;
}

static double memory_dirty_speed(const struct qsc_predict *predict)
{
	double sum = speed(&predict->user);
	uint32_t i;

	for (i = 0; i < predict->num_members; i++)
		sum += speed(&predict->members[i].dma);
	return sum;
}

uint64_t qsc_predict_left(const struct qsc_predict *predict)
{
	uint64_t left = predict->untracked ? 0 : predict->memory_left;
	uint32_t i;

	for (i = 0; i < predict->num_members; i++)
		left += predict->members[i].left;
	return left;
}

uint64_t qsc_predict_dirty_per_second(const struct qsc_predict *predict)
{
	double sum = memory_dirty_speed(predict);
	uint32_t i;

	for (i = 0; i < predict->num_members; i++)
		sum += speed(&predict->members[i].dirty);
	return (uint64_t)(sum * US_PER_S);
}

uint64_t qsc_predict_link_per_second(const struct qsc_predict *predict)
{
	uint64_t measured = qsc_rate_per_second(&predict->link);

	if (!predict->bandwidth)
		return measured ? measured : QSC_PREDICT_LINK;
	return measured ? qsc_min_u64(measured, predict->bandwidth) : predict->bandwidth;
}

/* What moves after the stop, and how long that takes. */
struct transfer {
	double memory; /* bytes */
	double total;  /* bytes, of devices too */
	double link_us;
	double devices_us; /* until the last lane has sent its devices */
	uint32_t slowest;  /* member that takes longest */
	double slowest_us;
};

/* Those that run while they are being stopped go on writing. */
static double stopping_us(const struct qsc_predict *predict)
{
	return (double)(part_us(predict, QSC_DOWNTIME_PAUSE) +
			part_us(predict, QSC_DOWNTIME_QUIESCE) +
			part_us(predict, QSC_DOWNTIME_STOP));
}

static double member_bytes(const struct qsc_predict *predict, uint32_t index)
{
	const struct qsc_predict_member *member = &predict->members[index];

	return (double)member->left + (double)member->fixed +
	       speed(&member->dirty) * stopping_us(predict);
}

static double memory_bytes(const struct qsc_predict *predict)
{
	double all = (double)predict->memory_bytes;
	double left = (double)predict->memory_left +
		      memory_dirty_speed(predict) * stopping_us(predict);

	return predict->untracked || left > all ? all : left;
}

/* As the lanes do it: each takes the next member when it is done with one. */
static void plan_transfer(const struct qsc_predict *predict, struct transfer *transfer)
{
	double link = (double)qsc_predict_link_per_second(predict) / US_PER_S;
	double first_us = -1; /* until the first device has given something */
	double lanes[QSC_LINK_MAX_CHANNELS] = {0};
	uint32_t count = predict->lanes ? predict->lanes : 1;
	uint32_t i;
	uint32_t lane;

	*transfer = (struct transfer){.memory = memory_bytes(predict)};
	if (count > QSC_LINK_MAX_CHANNELS)
		count = QSC_LINK_MAX_CHANNELS;
	transfer->total = transfer->memory;
	lanes[0] = predict->memory_shares_lane ? transfer->memory / link : 0;
	for (i = 0; i < predict->num_members; i++) {
		double bytes = member_bytes(predict, i);
		double read = speed(&predict->members[i].read);
		double us = bytes / link + (read > 0 ? bytes / read : 0);
		double piece = bytes < QSC_FRAME_MAX_DATA ? bytes : QSC_FRAME_MAX_DATA;
		double piece_us = read > 0 ? piece / read : 0;
		uint32_t free = 0;

		for (lane = 1; lane < count; lane++)
			if (lanes[lane] < lanes[free])
				free = lane;
		lanes[free] += us;
		transfer->total += bytes;
		if (first_us < 0 || piece_us < first_us)
			first_us = piece_us;
		if (us > transfer->slowest_us) {
			transfer->slowest_us = us;
			transfer->slowest = i;
		}
	}
	for (lane = 0; lane < count; lane++)
		if (lanes[lane] > transfer->devices_us)
			transfer->devices_us = lanes[lane];
	/* Where there is no memory to carry meanwhile, the link waits for the devices. */
	transfer->link_us = transfer->total / link;
	if (first_us > transfer->memory / link)
		transfer->link_us += first_us - transfer->memory / link;
}

void qsc_predict_stop(const struct qsc_predict *predict, struct qsc_downtime *downtime)
{
	struct transfer transfer;
	int part;

	plan_transfer(predict, &transfer);
	*downtime = (struct qsc_downtime){0};
	for (part = 0; part < QSC_DOWNTIME_PARTS; part++) {
		uint64_t us = part_us(predict, (enum qsc_downtime_part)part);

		/* The round ends when the destination has said so. */
		if (part == QSC_DOWNTIME_TRANSFER)
			us = part_us(predict, QSC_DOWNTIME_COMMIT) +
			     (uint64_t)(transfer.link_us > transfer.devices_us
						? transfer.link_us
						: transfer.devices_us);
		downtime->part_us[part] = us;
		downtime->total_us += us;
	}
}

/* ---- the verdict ---- */

static bool is_progress(uint64_t now, uint64_t mark)
{
	return now + mark / QSC_PREDICT_PROGRESS < mark;
}

enum qsc_predict_verdict qsc_predict_judge(struct qsc_predict *predict,
					   const struct qsc_downtime *downtime)
{
	uint64_t left = qsc_predict_left(predict);
	bool first = !predict->least_us;

	if (first || downtime->total_us < predict->least_us)
		predict->least_us = qsc_max_u64(downtime->total_us, 1);
	if (downtime->total_us <= predict->limit_us)
		return QSC_PREDICT_FITS;
	if (first || is_progress(downtime->total_us, predict->mark_us) ||
	    is_progress(left, predict->mark_left)) {
		predict->mark_us = first ? downtime->total_us
					 : qsc_min_u64(downtime->total_us, predict->mark_us);
		predict->mark_left = first ? left : qsc_min_u64(left, predict->mark_left);
		predict->barren = 0;
		return QSC_PREDICT_CONVERGES;
	}
	return ++predict->barren < QSC_PREDICT_PATIENCE ? QSC_PREDICT_CONVERGES : QSC_PREDICT_NEVER;
}

int32_t qsc_predict_error(const struct qsc_downtime *predicted, const struct qsc_downtime *measured)
{
	double error;

	if (!measured->total_us)
		return 0;
	error = ((double)measured->total_us - (double)predicted->total_us) * 1000 /
		(double)measured->total_us;
	return error < -1e9 ? -1000000000 : (int32_t)error;
}

/* ---- the sentence ---- */

struct words {
	char *text;
	size_t size;
	size_t used;
};

static void QSC_PRINTF(2, 3) say(struct words *words, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(words->text + words->used, words->size - words->used, fmt, args);
	va_end(args);
	if (n > 0)
		words->used = qsc_min_u64(words->used + (size_t)n, words->size - 1);
}

static void say_bytes(struct words *words, double bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	size_t unit = 0;

	while (bytes >= 1024 && unit + 1 < QSC_ARRAY_SIZE(units)) {
		bytes /= 1024;
		unit++;
	}
	say(words, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static void say_rate(struct words *words, double bytes_per_us)
{
	say_bytes(words, bytes_per_us * US_PER_S);
	say(words, " a second");
}

const char *qsc_predict_time_text(uint64_t us, char text[32])
{
	if (us < 1000)
		(void)snprintf(text, 32, "%llu us", (unsigned long long)us);
	else if (us < 10000)
		(void)snprintf(text, 32, "%.1f ms", (double)us / 1000);
	else
		(void)snprintf(text, 32, "%llu ms", (unsigned long long)((us + 500) / 1000));
	return text;
}

static void say_time(struct words *words, uint64_t us)
{
	char text[32];

	say(words, "%s", qsc_predict_time_text(us, text));
}

/* What one writes, and all of them where that is much more. */
static void say_share(const struct qsc_predict *predict, double own, struct words *words)
{
	double all = (double)qsc_predict_dirty_per_second(predict) / US_PER_S;

	say_rate(words, own);
	if (all > own * 5 / 4) {
		say(words, " (all together ");
		say_rate(words, all);
		say(words, ")");
	}
}

/* Of all that is written again, the fastest; false where nothing is. */
static bool say_who_writes(const struct qsc_predict *predict, const char *before,
			   struct words *words)
{
	double most = speed(&predict->user);
	const char *device = NULL;
	const char *what = "memory";
	uint32_t i;

	for (i = 0; i < predict->num_members; i++) {
		const struct qsc_predict_member *member = &predict->members[i];
		bool state = speed(&member->dirty) > speed(&member->dma);
		double own = speed(state ? &member->dirty : &member->dma);

		if (own <= most)
			continue;
		most = own;
		device = member->name;
		what = state ? "its state" : "memory";
	}
	if (most <= 0)
		return false;
	if (device)
		say(words, "%sdevice '%s' writes ", before, device);
	else
		say(words, "%sthe user writes ", before);
	say_share(predict, most, words);
	say(words, " of %s again", what);
	return true;
}

static void say_what_device_has(const struct qsc_predict *predict, uint32_t index,
				struct words *words)
{
	const struct qsc_predict_member *member = &predict->members[index];

	say(words, "device '%s' ", member->name);
	if (member->fixed >= member->left) {
		say(words, "has ");
		say_bytes(words, (double)member->fixed);
		say(words, " of state that moves only after the stop");
	} else {
		say(words, "writes ");
		say_share(predict, speed(&member->dirty), words);
		say(words, " of its state again");
	}
}

/* Who has most of what moves only after the stop; *all of it. */
static uint32_t most_fixed(const struct qsc_predict *predict, double *all)
{
	uint32_t most = 0;
	uint32_t i;

	*all = 0;
	for (i = 0; i < predict->num_members; i++) {
		*all += (double)predict->members[i].fixed;
		if (predict->members[i].fixed > predict->members[most].fixed)
			most = i;
	}
	return most;
}

/* Whether it is the limit that was asked for and not the link. */
static bool is_bounded(const struct qsc_predict *predict)
{
	uint64_t measured = qsc_rate_per_second(&predict->link);

	/* A rate that was measured under a limit is that limit, within what it is kept. */
	return predict->bandwidth &&
	       (!measured || measured >= predict->bandwidth - predict->bandwidth / 16);
}

static void say_what_is_slow(const struct qsc_predict *predict, const struct transfer *transfer,
			     struct words *words)
{
	double link = (double)qsc_predict_link_per_second(predict) / US_PER_S;
	double fixed;
	uint32_t member = most_fixed(predict, &fixed);

	if (transfer->devices_us > transfer->link_us) {
		member = transfer->slowest;
		say_what_device_has(predict, member, words);
		say(words, " and gives no more than ");
		say_rate(words, speed(&predict->members[member].read));
		return;
	}
	if (fixed > 0 && fixed >= transfer->total / 2) {
		say_what_device_has(predict, member, words);
	} else if (predict->no_precopy) {
		say_bytes(words, transfer->total);
		say(words, " of memory and device state move after the stop");
	} else if (predict->untracked && transfer->memory >= transfer->total / 2) {
		say_bytes(words, transfer->memory);
		say(words, " of memory move after the stop, since %s does not tell what it writes",
		    predict->untracked);
	} else if (!say_who_writes(predict, "", words)) {
		say_bytes(words, transfer->total);
		say(words, " are left");
	}
	say(words, is_bounded(predict) ? " and the bandwidth allows " : " and the link carries ");
	say_rate(words, link);
	if (predict->no_precopy)
		say(words, "; nothing moved before the stop, as was asked for");
}

static void say_largest_part(const struct qsc_downtime *downtime, struct words *words,
			     uint64_t others)
{
	int largest = QSC_DOWNTIME_PAUSE;
	int part;

	for (part = 0; part < QSC_DOWNTIME_PARTS; part++)
		if (part != QSC_DOWNTIME_TRANSFER &&
		    downtime->part_us[part] > downtime->part_us[largest])
			largest = part;
	say(words, "whatever moves, changes of state and loading take ");
	say_time(words, others);
	say(words, ", of which '%s' ", qsc_downtime_part_name((enum qsc_downtime_part)largest));
	say_time(words, downtime->part_us[largest]);
}

void qsc_predict_explain(const struct qsc_predict *predict, const struct qsc_downtime *downtime,
			 char *text, size_t size)
{
	struct words words = {text, size, 0};
	uint64_t transfer_us = downtime->part_us[QSC_DOWNTIME_TRANSFER];
	uint64_t message_us = qsc_min_u64(part_us(predict, QSC_DOWNTIME_COMMIT), transfer_us);
	/* What no rate shortens. */
	uint64_t others = downtime->total_us - transfer_us + message_us;
	uint64_t least = predict->least_us ? predict->least_us : downtime->total_us;
	struct transfer transfer;

	plan_transfer(predict, &transfer);
	say(&words, "the stop would take ");
	say_time(&words, downtime->total_us);
	say(&words, " and may take ");
	say_time(&words, predict->limit_us);
	say(&words, ", the least it came to is ");
	say_time(&words, least);
	say(&words, ": ");
	if (others >= predict->limit_us) {
		say_largest_part(downtime, &words, others);
		(void)say_who_writes(predict, ", and ", &words);
	} else {
		say_what_is_slow(predict, &transfer, &words);
	}
	/* An eighth more than the least, in whole milliseconds. */
	say(&words, "; raise the limit to %llu ms",
	    (unsigned long long)((least + least / 8 + 999) / 1000));
	if (others < predict->limit_us && transfer.devices_us <= transfer.link_us) {
		say(&words, is_bounded(predict) ? ", allow " : ", provide ");
		say_rate(&words, transfer.total / (double)(predict->limit_us - others));
	}
	if (predict->no_precopy)
		say(&words, ", let it move before the stop");
	say(&words, ", or let the limit be exceeded");
}
