import Testing

@testable import AdminQueue

@Suite struct ConfigurationWatchTests {
    @Test func `AVQ-D-313: the generation moves when the bytes changed since they were read`() {
        var watch = ConfigurationWatch()
        let first = watch.generation(of: [1, 2])
        #expect(watch.generation(of: [1, 2]) == first)
        let second = watch.generation(of: [1, 3])
        #expect(second != first)
        #expect(watch.generation(of: [1, 3]) == second)
        #expect(watch.generation(of: [1, 2]) != second)
    }

    @Test func `AVQ-D-313: a configuration that grows is a change`() {
        var watch = ConfigurationWatch()
        let first = watch.generation(of: [])
        #expect(watch.generation(of: [0]) != first)
    }
}
