/* SPDX-License-Identifier: MIT */
/*
 * A small device, complete: it adds up the bytes of a range of memory by DMA, shows the sum in a
 * register and raises an interrupt. Served over vfio-user:
 *
 *	tally SOCKET
 *
 * Nothing in it is about migration but the list of what its state consists of.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <quiesce/runtime.h>
#include <quiesce/server.h>

/* [registers] */
enum {
	REG_ADDRESS = 0x00, /* 8 bytes: IOVA of the range */
	REG_LENGTH = 0x08,  /* 4 bytes: its size in bytes */
	REG_STATUS = 0x0c,  /* 4 bytes: one of the below; write STATUS_BUSY to start */
	REG_SUM = 0x10,	    /* 8 bytes, read only: valid when the status is STATUS_DONE */
};

enum { STATUS_IDLE, STATUS_BUSY, STATUS_DONE, STATUS_FAILED };

/* [state] */
struct state {
	uint64_t address;
	uint64_t sum;
	uint32_t length;
	uint32_t done; /* bytes added up so far */
	uint32_t status;
};

static const struct qsc_field fields[] = {
	QSC_FIELD(struct state, address), QSC_FIELD(struct state, sum),
	QSC_FIELD(struct state, length),  QSC_FIELD(struct state, done),
	QSC_FIELD(struct state, status),  QSC_FIELD_END,
};

static const struct qsc_section sections[] = {
	{.name = "tally", .version = 1, .min_version = 1, .fields = fields},
	{.name = NULL},
};

/* [tally] */
struct tally {
	struct qsc_runtime *rt;
	pthread_mutex_t lock; /* guards the state; never held across DMA */
};

static void reset(void *ctx)
{
	/* All zero is right: STATUS_IDLE. */
	(void)ctx;
}

/* [access] */
static int region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	struct tally *tally = ctx;
	const struct state *state = qsc_runtime_state(tally->rt);

	(void)region;
	memset(buf, 0, count);
	pthread_mutex_lock(&tally->lock);
	if (offset == REG_ADDRESS && count == 8)
		memcpy(buf, &state->address, 8);
	else if (offset == REG_LENGTH && count == 4)
		memcpy(buf, &state->length, 4);
	else if (offset == REG_STATUS && count == 4)
		memcpy(buf, &state->status, 4);
	else if (offset == REG_SUM && count == 8)
		memcpy(buf, &state->sum, 8);
	pthread_mutex_unlock(&tally->lock);
	return 0;
}

static int region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	struct tally *tally = ctx;
	struct state *state = qsc_runtime_state(tally->rt);
	bool start = false;

	(void)region;
	pthread_mutex_lock(&tally->lock);
	if (state->status != STATUS_BUSY) {
		/* As most hardware: a busy engine takes no new orders. */
		if (offset == REG_ADDRESS && count == 8)
			memcpy(&state->address, buf, 8);
		else if (offset == REG_LENGTH && count == 4)
			memcpy(&state->length, buf, 4);
		else if (offset == REG_STATUS && count == 4)
			start = *(const uint8_t *)buf == STATUS_BUSY;
	}
	if (start) {
		state->status = STATUS_BUSY;
		state->done = 0;
		state->sum = 0;
	}
	pthread_mutex_unlock(&tally->lock);
	if (start)
		qsc_work_kick(tally->rt, 0);
	return 0;
}

/* [work] */
static enum qsc_work work(void *ctx, uint32_t worker)
{
	struct tally *tally = ctx;
	struct state *state = qsc_runtime_state(tally->rt);
	uint8_t piece[4096];
	uint64_t from;
	uint32_t size;
	bool busy;
	int result;

	(void)worker;
	pthread_mutex_lock(&tally->lock);
	busy = state->status == STATUS_BUSY;
	from = state->address + state->done;
	size = state->length - state->done;
	pthread_mutex_unlock(&tally->lock);
	if (!busy)
		return QSC_WORK_IDLE;
	if (size > sizeof(piece))
		size = sizeof(piece);

	result = size ? qsc_dma_read(tally->rt, from, piece, size) : 0;
	/*
	 * The device is being stopped. Leave everything as it is: work() is called again when the
	 * device runs the next time, here or elsewhere.
	 */
	if (result == -EAGAIN)
		return QSC_WORK_IDLE;

	pthread_mutex_lock(&tally->lock);
	for (uint32_t i = 0; !result && i < size; i++)
		state->sum += piece[i];
	state->done += size;
	if (result)
		state->status = STATUS_FAILED;
	else if (state->done == state->length)
		state->status = STATUS_DONE;
	busy = state->status == STATUS_BUSY;
	pthread_mutex_unlock(&tally->lock);
	if (busy)
		return QSC_WORK_AGAIN;
	qsc_irq_raise(tally->rt, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	return QSC_WORK_IDLE;
}

/* [validate] */
static int validate(void *ctx, const void *candidate, struct qsc_error *err)
{
	const struct state *state = candidate;

	(void)ctx;
	if (state->status > STATUS_FAILED)
		return qsc_error_set(err, EINVAL, "SESS-6", "status %u is none", state->status);
	if (state->done > state->length)
		return qsc_error_set(err, EINVAL, "SESS-6", "%u bytes of %u are done", state->done,
				     state->length);
	return 0;
}

/* [model] */
static const struct qsc_model model = {
	.type = "tally",
	.pci = {.vendor = 0x1b36, .device = 0x00f0, .class_code = 0x088000, .revision = 1},
	.state_size = sizeof(struct state),
	.sections = sections,
	.workers = 1,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.work = work,
	.validate = validate,
};

static int tally_create(struct tally *tally, struct qsc_error *err)
{
	static const struct qsc_region_desc regions[] = {{
		.index = VFIO_PCI_BAR0_REGION_INDEX,
		.size = 4096,
		.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
		.block = QSC_NO_BLOCK,
	}};
	const struct qsc_runtime_options options = {
		.migration_flags = QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P,
		.regions = regions,
		.num_regions = 1,
		.msix_vectors = 1,
	};

	pthread_mutex_init(&tally->lock, NULL);
	return qsc_runtime_create(&model, tally, &options, &tally->rt, err);
}

/* [serve] */
static struct qsc_server *server;

static void stop(int number)
{
	(void)number;
	qsc_server_stop(server);
}

/* Each user of the server gets the same device, one at a time. */
static int open_device(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct tally *tally = ctx;
	int result = qsc_runtime_open(tally->rt, dev);

	return result < 0 ? qsc_error_set(err, -result, NULL, "the device is in use") : 0;
}

int main(int argc, char **argv)
{
	struct tally tally = {0};
	const struct qsc_server_options options = {.open = open_device, .open_ctx = &tally};
	const struct sigaction action = {.sa_handler = stop};
	struct qsc_error err = QSC_ERROR_NONE;

	if (argc != 2) {
		(void)fprintf(stderr, "usage: tally SOCKET\n");
		return 2;
	}
	if (tally_create(&tally, &err) < 0 ||
	    qsc_server_create(argv[1], &options, &server, &err) < 0) {
		(void)fprintf(stderr, "tally: %s\n", err.text);
		qsc_runtime_destroy(tally.rt);
		return 1;
	}
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGINT, &action, NULL);
	printf("serving at %s\n", argv[1]);
	(void)fflush(stdout);
	(void)qsc_server_run(server);
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	qsc_server_destroy(server);
	qsc_runtime_destroy(tally.rt);
	pthread_mutex_destroy(&tally.lock);
	return 0;
}
/* [end] */
