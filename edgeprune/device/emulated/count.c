/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A plugin of QEMU's user-mode emulator that counts guest instructions between marker system calls.
 *
 * A marker is lseek(-1, MAGIC << 16 | NUMBER, 0), which fails in any kernel and changes nothing. At
 * each one a line "NUMBER TOTAL" goes to the file that is given as out=FILE; TOTAL is the number of
 * instructions that all threads have begun so far. profiler/count.py makes the markers.
 *
 * The functions of QEMU that are used are declared here, since distributions ship the emulator
 * without its header.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define LSEEK 62 /* the system call's number on arm64 */
#define MAGIC 0x6570 /* as in profiler/count.py */

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*call)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block,
                                          void (*call)(unsigned int, void *), int flags,
                                          void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id,
                                          void (*call)(plugin_id, unsigned int, int64_t, uint64_t,
                                                       uint64_t, uint64_t, uint64_t, uint64_t,
                                                       uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

/* QEMU refuses a plugin of another version than it knows; the set-up tries them one by one. */
EXPORT int qemu_plugin_version = API;

static uint64_t total;
static FILE *out;

static void began(unsigned int cpu, void *instructions)
{
    (void)cpu;
    __atomic_fetch_add(&total, (uint64_t)(uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, began, 0,
                                         (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void called(plugin_id id, unsigned int cpu, int64_t number, uint64_t file, uint64_t offset,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)cpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == LSEEK && (int32_t)file == -1 && offset >> 16 == MAGIC) {
        uint64_t now = __atomic_load_n(&total, __ATOMIC_RELAXED);
        fprintf(out, "%u %llu\n", (unsigned int)(offset & 0xffff), (unsigned long long)now);
        fflush(out);
    }
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int index = 0; index < argc; index++) {
        if (strncmp(argv[index], "out=", 4) == 0) {
            out = fopen(argv[index] + 4, "a");
        }
    }
    if (out == NULL) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
