import Testing
import Virtqueue

@testable import PollEngine

@Suite struct FrameGeneratorTests {
    @Test(arguments: [60, 64, 65, 1518, 65_535])
    func `frames have the size, the type, the filler and their own numbers`(size: Int) {
        let generator = FrameGenerator(size: size)
        generator.prepare(32, sequence: 0x1122_3344_5566_7780, port: 0x1A5)
        #expect(generator.burst.count == 32)
        for index in 0..<32 {
            let frame = TapPortTests.bytes(generator.burst, index)
            #expect(frame.count == size)
            #expect(Array(frame[0..<6]) == [2, 0x56, 0x50, 1, 0xA5, 1])
            #expect(Array(frame[6..<12]) == [2, 0x56, 0x50, 1, 0xA5, 0])
            #expect(Array(frame[12..<16]) == [0x88, 0xB5, 0, 0])
            let number = frame[16..<24].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            #expect(number == 0x1122_3344_5566_7780 + UInt64(index))
            #expect((24..<size).allSatisfy { frame[$0] == UInt8(truncatingIfNeeded: $0) })
        }
    }

    @Test func `only the frames asked for are numbered anew`() {
        let generator = FrameGenerator(size: 64)
        generator.prepare(32, sequence: 100, port: 0)
        generator.prepare(3, sequence: 500, port: 0)
        let numbers = (0..<32).map { TapPortTests.bytes(generator.burst, $0)[16] }
        #expect(numbers[2] == UInt8(502 & 0xFF))
        #expect(numbers[3] == 103)
    }
}
