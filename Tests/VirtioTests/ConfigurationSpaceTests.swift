import Testing

@testable import Virtio

@Suite struct ConfigurationSpaceTests {
    @Test func `HI-H22: the generation tells of a change between two looks`() {
        var space = ConfigurationSpace([1, 2])
        let first = space.observe([1, 2])
        #expect(first == space.generation)
        let second = space.observe([1, 3])
        #expect(second == first &+ 1)
        #expect(space.generation == second)
    }

    @Test func `HI-H22: a change that is taken back between two looks is told of`() {
        var space = ConfigurationSpace([1, 2])
        let before = space.observe([1, 2])
        let torn = [space.byte(0, of: [1, 2]), space.byte(1, of: [9, 9])]
        #expect(torn == [1, 9])
        let after = space.observe([1, 2])
        #expect(after != before)
    }

    @Test func `HI-H22: bytes past the end are 0, also when the space shrinks`() {
        var space = ConfigurationSpace([1, 2])
        let bytes = [2, 100, -1, Int.max].map { space.byte($0, of: [1, 2]) }
        #expect(bytes == [0, 0, 0, 0])
        let before = space.generation
        let gone = space.byte(1, of: [1])
        #expect(gone == 0)
        #expect(space.generation != before)
    }

    @Test func `the generation wraps`() {
        var space = ConfigurationSpace([0])
        for value in UInt8(1)...255 { space.observe([value]) }
        space.observe([0])
        #expect(space.generation == 0)
    }
}
