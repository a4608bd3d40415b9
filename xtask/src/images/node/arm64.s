// Says which platform it is for, by way of the C library.
        .text
        .globl  _start
_start: adrp    x0, name
        add     x0, x0, :lo12:name
        bl      puts
        mov     w0, #0
        bl      exit
        .section .rodata
name:   .asciz  "arm64"
        .section .note.GNU-stack, "", %progbits
