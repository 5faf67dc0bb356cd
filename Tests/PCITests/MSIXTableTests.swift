import PCI
import Testing

@Suite struct MSIXTableTests {
    /// A table whose answers to changes can stand inside an expectation.
    private final class Vectors {
        var table: MSIXTable

        init(_ count: Int = 4) {
            table = MSIXTable(count: count)
            table.setControl(MSIXTable.enableBit)
        }

        func fire(_ vector: Int, canSend: Bool = true) -> Bool {
            table.fire(vector, canSend: canSend)
        }

        func takeDeliverable() -> [Int] { table.takeDeliverable() }
    }

    @Test func `the capability has size, table and pending bits`() {
        let capability = MSIXTable(count: 256).capability(
            bar: 0,
            table: 0x6000,
            pendingBits: 0x7000
        )
        #expect(capability == [0x11, 0, 0xff, 0, 0, 0x60, 0, 0, 0, 0x70, 0, 0])
    }

    @Test func `HI-H21: a masked vector stays pending and comes when it is unmasked`() {
        let vectors = Vectors()
        #expect(!vectors.fire(2))
        #expect(vectors.table.readPending(0, .long) == 0b100)
        #expect(vectors.takeDeliverable() == [])
        vectors.table.writeTable(2 * 16 + 12, .long, 0)
        #expect(vectors.takeDeliverable() == [2])
        #expect(vectors.table.readPending(0, .long) == 0)
        #expect(vectors.takeDeliverable() == [])
        #expect(vectors.fire(2))
    }

    @Test func `HI-H21: a masked function holds every vector back`() {
        let vectors = Vectors()
        for vector in UInt64(0)..<4 { vectors.table.writeTable(vector * 16 + 12, .long, 0) }
        vectors.table.setControl(MSIXTable.enableBit | MSIXTable.functionMaskBit)
        #expect(!vectors.fire(0) && !vectors.fire(3) && !vectors.fire(3))
        #expect(vectors.table.readPending(0, .byte) == 0b1001)
        vectors.table.setControl(MSIXTable.enableBit)
        #expect(vectors.takeDeliverable() == [0, 3])
    }

    @Test func `HI-H21: what cannot be sent stays pending`() {
        let vectors = Vectors()
        vectors.table.writeTable(12, .long, 0)
        #expect(!vectors.fire(0, canSend: false))
        #expect(vectors.takeDeliverable() == [0])
    }

    @Test func `HI-H21: writes to the pending bits and past the end do nothing`() {
        let vectors = Vectors()
        let before = (0..<16).map { vectors.table.readTable(UInt64(4 * $0), .long) }
        for offset in [64, 65, 4096, 1 << 40, UInt64.max - 1, UInt64.max] {
            for width in AccessWidth.allCases {
                vectors.table.writeTable(offset, width, .max)
                #expect(vectors.table.readPending(offset, width) == 0)
            }
            #expect(vectors.table.readTable(offset, .byte) == 0)
        }
        // The last two wrap around to the start of the table.
        let after = (0..<16).map { vectors.table.readTable(UInt64(4 * $0), .long) }
        #expect(after.dropFirst() == before.dropFirst())
    }

    @Test func `HI-H21: odd widths and places write the bytes they cover`() {
        let vectors = Vectors()
        vectors.table.writeTable(16 + 4, .long, 0x1122_3344)
        vectors.table.writeTable(16 + 5, .word, 0xaabb)
        #expect(vectors.table.readTable(16 + 4, .long) == 0x11aa_bb44)
        #expect(vectors.table.readTable(16 + 7, .byte) == 0x11)
        // Over the end of one entry into the next: control keeps its reserved bits 0.
        vectors.table.writeTable(16 + 14, .long, 0xffff_ffff)
        #expect(vectors.table.readTable(16 + 12, .long) == 1)
        #expect(vectors.table.readTable(32, .long) == 0xfffc)
    }

    @Test func `HI-H11: a vector past the table and a table that is off send nothing`() {
        let vectors = Vectors()
        for vector in [4, 255, 0xffff, -1, Int.max] { #expect(!vectors.fire(vector)) }
        vectors.table.setControl(0)
        #expect(!vectors.fire(0))
        #expect(vectors.table.readPending(0, .long) == 0)
        #expect(vectors.takeDeliverable() == [])
    }

    @Test func `HI-H24: after a reset everything is masked and nothing pends`() {
        let vectors = Vectors(65)
        _ = vectors.fire(64)
        #expect(vectors.table.readPending(8, .byte) == 1)
        vectors.table.reset()
        #expect(!vectors.table.isEnabled)
        #expect(vectors.table.readPending(8, .byte) == 0)
        #expect(vectors.table.readTable(64 * 16 + 12, .long) == 1)
    }
}
