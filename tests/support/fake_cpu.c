/* Let one process see another x86 processor: LD_PRELOAD this library (gcc -shared -fPIC -O2 fake_cpu.c -o fake_cpu.so).

   Linux can make the instruction CPUID fail (arch_prctl ARCH_SET_CPUID, where the processor has "CPUID faulting"). The
   signal handler below then executes it, changes the answer, and goes on behind it. Environment:

   FAKE_L1D     bytes of the first-level data cache, a multiple of 4096
   FAKE_VENDOR  AMD: what a Zen 3 answers, which has neither AVX-512 nor AMX

   A process with neither of the two sees the real processor. */

#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };
enum { DATA = 1, INSTRUCTIONS = 2, UNIFIED = 3 };

typedef struct { unsigned a, b, c, d; } Answer;

static unsigned l1d;
static int is_amd;

static Answer cpuid(unsigned leaf, unsigned sub)
{
    Answer x;
    __asm__ volatile("cpuid" : "=a"(x.a), "=b"(x.b), "=c"(x.c), "=d"(x.d) : "a"(leaf), "c"(sub));
    return x;
}

static long allow_cpuid(int allowed)
{
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, (long)allowed);
}

/* Leaf 4 of Intel and leaf 8000001d of AMD describe a cache alike. */
static Answer cache(unsigned level, unsigned kind, unsigned bytes, unsigned ways, unsigned threads)
{
    Answer x = {kind | level << 5 | 1 << 8 | (threads - 1) << 14, 63 | (ways - 1) << 22, bytes / (64 * ways) - 1, 0};
    return x;
}

static Answer as_zen3(unsigned leaf, unsigned sub, Answer x)
{
    unsigned first = l1d ? l1d : 32 << 10;
    Answer none = {0, 0, 0, 0};
    switch (leaf) {
    case 0:
        memcpy(&x.b, "Auth", 4), memcpy(&x.d, "enti", 4), memcpy(&x.c, "cAMD", 4);
        return x;
    case 1:
        x.a = 0x00a20f12; /* family 19h */
        return x;
    case 4:
        return none;
    case 7:
        if (sub == 1)
            x.a &= ~(1u << 4 | 1u << 5 | 1u << 21); /* AVX-VNNI, AVX512-BF16, AMX-FP16 */
        if (sub == 0) {
            x.b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << 31); /* AVX512 F DQ IFMA CD BW VL */
            x.c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);              /* AVX512 VBMI VNNI ... */
            x.d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25); /* AVX512 ..., AMX */
        }
        return x;
    case 0x80000000:
        x.a = 0x80000021;
        return x;
    case 0x80000001:
        x.c |= 1u << 22; /* leaf 8000001d describes caches */
        return x;
    case 0x80000005:
        x.c = first >> 10 << 24 | 0x080140;
        x.d = 0x20080140;
        return x;
    case 0x80000006:
        x.c = 512 << 16 | 0x6140;       /* KiB */
        x.d = 32 * 2 << 18 | 0x9140;    /* halves of a MiB */
        return x;
    case 0x8000001d:
        switch (sub) {
        case 0: return cache(1, DATA, first, 8, 1);
        case 1: return cache(1, INSTRUCTIONS, 32 << 10, 8, 1);
        case 2: return cache(2, UNIFIED, 512 << 10, 8, 1);
        case 3: return cache(3, UNIFIED, 32 << 20, 16, 16);
        }
        return none;
    }
    return x;
}

static Answer with_l1d(unsigned leaf, Answer x)
{
    unsigned kind = x.a & 31, level = x.a >> 5 & 7;
    if (leaf == 4 && kind == DATA && level == 1) {
        Answer smaller = cache(1, DATA, l1d, 8, 1);
        x.b = smaller.b, x.c = smaller.c;
    }
    return x;
}

static Answer answer(unsigned leaf, unsigned sub)
{
    allow_cpuid(1);
    Answer x = cpuid(leaf, sub);
    allow_cpuid(0);
    return is_amd ? as_zen3(leaf, sub, x) : with_l1d(leaf, x);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *instruction = (const unsigned char *)registers[REG_RIP];
    (void)info;
    if (instruction[0] != 0x0f || instruction[1] != 0xa2) { /* no CPUID: a true fault, met again on return */
        signal(number, SIG_DFL);
        return;
    }
    Answer x = answer(registers[REG_RAX], registers[REG_RCX]);
    registers[REG_RAX] = x.a, registers[REG_RBX] = x.b, registers[REG_RCX] = x.c, registers[REG_RDX] = x.d;
    registers[REG_RIP] += 2;
}

/* What a program here is told: 1 if the vendor is AMD, and the bytes of its first-level data cache. */
int seen_amd(void)
{
    return cpuid(0, 0).c == 0x444d4163;
}

unsigned seen_l1d(void)
{
    Answer x = cpuid(seen_amd() ? 0x8000001d : 4, 0);
    return (x.c + 1) * ((x.b & 0xfff) + 1) * ((x.b >> 12 & 0x3ff) + 1) * ((x.b >> 22 & 0x3ff) + 1);
}

__attribute__((constructor)) static void begin(void)
{
    const char *bytes = getenv("FAKE_L1D"), *vendor = getenv("FAKE_VENDOR");
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    l1d = bytes ? strtoul(bytes, NULL, 0) : 0;
    is_amd = vendor && !strcmp(vendor, "AMD");
    if (l1d || is_amd) {
        sigaction(SIGSEGV, &action, NULL);
        allow_cpuid(0); /* where it cannot fail, seen_l1d tells */
    }
}
